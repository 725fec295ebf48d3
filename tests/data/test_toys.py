import numpy as np
import pytest

from flaxgen.data.toys import CLUSTER_STD, CURVE_STD, MEAN, STD, TOYS, DataError, Toy


def points(name: str, split: str = "train", seed: int = 0, size: int = 4000) -> np.ndarray:
    toy = Toy(name, split, seed, size)
    return np.stack([toy[i]["point"] for i in range(size)])


@pytest.mark.parametrize("name", TOYS)
def test_an_element_depends_on_seed_and_index_alone(name):
    np.testing.assert_array_equal(points(name, size=10), points(name, size=100)[:10])
    assert not np.array_equal(points(name, size=10), points(name, seed=1, size=10))
    assert not np.array_equal(points(name, size=10), points(name, split="test", size=10))


@pytest.mark.parametrize("name", TOYS)
def test_range_and_type(name):
    drawn = points(name)
    assert drawn.dtype == np.float32
    beyond = {"eight_gaussians": CLUSTER_STD, "gaussian1d": STD / 2}.get(name, CURVE_STD)
    assert np.abs(drawn).max() < 1 + 5 * beyond
    assert drawn.std(axis=0).min() > 0.2
    assert drawn.std(axis=0).max() < 0.8


def test_the_gaussian_on_the_line():
    drawn = points("gaussian1d", size=40_000)
    assert drawn.shape == (40_000, 1)
    assert drawn.mean() == pytest.approx(MEAN, abs=4 * STD / 200)
    assert drawn.std() == pytest.approx(STD, rel=0.02)
    assert np.mean(np.abs(drawn - MEAN) < STD) == pytest.approx(0.6827, abs=0.01)


def test_s_curve_moments():
    """x = sin t and y = sign(t) (cos t - 1) / 2 with t uniform in +-3 pi / 2."""
    drawn = points("s_curve", size=40_000)
    variance = np.array([1 / 2, (3 / 2 + 4 / (3 * np.pi)) / 4]) + CURVE_STD**2
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=4 * np.sqrt(variance.max() / 40_000))
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.02)


def test_s_curve_lies_on_its_circles():
    """Two circles (in x, 2 y) of radius 1 around (0, -1) and (0, 1)."""
    x, y = points("s_curve").T
    radius = np.hypot(x, 2 * y - np.where(y > 0, 1, -1))
    assert np.abs(radius - 1).max() < 12 * CURVE_STD
    assert np.abs(radius - 1).mean() < 2 * CURVE_STD


def test_swiss_roll_radius_grows_with_the_angle():
    x, y = points("swiss_roll").T
    turn = np.hypot(x, y) * 4.5 * np.pi - np.arctan2(y, x)  # t minus its angle: a multiple of 2 pi
    off = turn - 2 * np.pi * np.round(turn / (2 * np.pi))
    assert np.abs(off).mean() < 0.4
    assert np.hypot(x, y).min() > 1 / 3 - 5 * CURVE_STD


def test_eight_gaussians_by_cluster():
    toy = Toy("eight_gaussians", "train", 0, 8000)
    labels = np.array([toy[i]["label"] for i in range(len(toy))])
    drawn = points("eight_gaussians", size=8000)
    assert toy.num_classes == 8
    for k in range(8):
        cluster = drawn[labels == k]
        assert len(cluster) == pytest.approx(1000, abs=150)
        centre = (np.cos(k * np.pi / 4), np.sin(k * np.pi / 4))
        np.testing.assert_allclose(cluster.mean(axis=0), centre, atol=5 * CLUSTER_STD / np.sqrt(len(cluster)))
        np.testing.assert_allclose(cluster.std(axis=0), CLUSTER_STD, rtol=0.12)


def test_moons_are_half_circles_mirrored_in_the_origin():
    toy = Toy("moons", "train", 0, 2000)
    labels = np.array([toy[i]["label"] for i in range(len(toy))])
    drawn = points("moons", size=2000)
    outer = 1.5 * np.where(labels[:, None] == 0, drawn, -drawn) + (0.5, 0.25)
    assert 850 < labels.sum() < 1150
    np.testing.assert_allclose(np.hypot(*outer.T), 1, atol=8 * CURVE_STD)
    assert outer[:, 1].min() > -8 * CURVE_STD


def test_unknown_names_are_one_line():
    with pytest.raises(DataError, match="s_curve, swiss_roll"):
        Toy("s_curv", "train", 0, 10)
    with pytest.raises(DataError, match="use train or test"):
        Toy("moons", "validation", 0, 10)
