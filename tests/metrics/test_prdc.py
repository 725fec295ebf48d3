import numpy as np
import pytest

from flaxgen.metrics import prdc
from flaxgen.metrics.prdc import density_coverage, precision_recall


def gaussian(count: int, width: int, seed: int, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    return (mean + std * np.random.default_rng(seed).standard_normal((count, width))).astype(np.float32)


def brute_force(real, fake, k) -> tuple[float, float]:
    """The definition, one pair at a time in float64."""

    def share(queries, points):
        distance = np.linalg.norm(points[:, None].astype(float) - points[None].astype(float), axis=-1)
        radius = np.sort(distance, axis=1)[:, k]  # column 0 is the point itself
        to_points = np.linalg.norm(queries[:, None].astype(float) - points[None].astype(float), axis=-1)
        return (to_points <= radius).any(axis=1).mean()

    return share(fake, real), share(real, fake)


@pytest.mark.parametrize(("real", "fake", "width", "k"), [(60, 40, 2, 3), (33, 33, 5, 5)])
def test_brute_force(real, fake, width, k):
    a, b = gaussian(real, width, 0), gaussian(fake, width, 1, mean=0.4, std=0.8)
    np.testing.assert_allclose(precision_recall(a, b, neighbours=k), brute_force(a, b, k), atol=1e-6)


def test_blocks_do_not_show(monkeypatch):
    """Shapes of their own, so that nothing compiled with larger blocks is used."""
    monkeypatch.setattr(prdc, "BLOCK", 16)  # divides neither
    a, b = gaussian(61, 4, 0), gaussian(45, 4, 1, mean=0.5)
    np.testing.assert_allclose(precision_recall(a, b, neighbours=2), brute_force(a, b, 2), atol=1e-6)


def test_by_hand():
    """Points 0, 1, 3, 10 with k=1 have radii 1, 1, 2, 7; the fakes' radii are 3.5, 3, 3, 92."""
    real = np.array([[0.0], [1.0], [3.0], [10.0]], np.float32)
    fake = np.array([[-1.5], [2.0], [5.0], [97.0]], np.float32)
    # -1.5: off by 0.5; 2: within 1 of 1; 5: within 2 of 3; 97: far off
    assert precision_recall(real, fake, neighbours=1).precision == 0.5
    # radii 3.5 around -1.5 reach 0 and 1; 3 around 2 reaches 3; 92 around 97 reaches from 5 on, so 10
    assert precision_recall(real, fake, neighbours=1).recall == 1.0


def test_a_set_covers_itself_and_swapping_swaps():
    a, b = gaussian(40, 3, 0), gaussian(40, 3, 1, mean=1.0)
    assert precision_recall(a, a) == (1.0, 1.0)
    assert precision_recall(a, b) == precision_recall(b, a)[::-1]


def test_copies_lie_on_the_manifold_however_far_from_the_origin():
    """Four copies of each point make every radius zero: only rounding decides, and it must not."""
    points = np.repeat(gaussian(20, 64, 0, mean=100.0), 4, axis=0)
    assert precision_recall(points, points, neighbours=3) == (1.0, 1.0)


def test_far_apart_is_zero():
    assert precision_recall(gaussian(40, 3, 0), gaussian(40, 3, 1, mean=50.0)) == (0.0, 0.0)


def test_fewer_modes_cost_recall_and_not_precision_and_noise_the_reverse():
    modes = np.repeat(np.eye(4, dtype=np.float32) * 20, 50, axis=0)
    real = modes + gaussian(200, 4, 0)
    collapsed = precision_recall(real, np.repeat(modes[:50], 4, axis=0) + gaussian(200, 4, 1))
    assert collapsed.precision > 0.6
    assert collapsed.recall < 0.3
    noisy = precision_recall(real, modes + gaussian(200, 4, 1, std=4.0))
    assert noisy.precision < 0.3


def test_precision_falls_with_distance():
    real = gaussian(200, 4, 0)
    found = [precision_recall(real, gaussian(200, 4, 1, mean=shift)).precision for shift in (0.0, 1.0, 2.0, 4.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.85
    assert found[-1] < 0.1


def test_held_out_digits_lie_on_the_manifold_of_the_others():
    """Real against real, pixels, k=3: what a perfect generator would reach."""
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    pixels, _ = load_digits(return_X_y=True)
    pixels = pixels[np.random.default_rng(0).permutation(len(pixels))]
    found = precision_recall(pixels[1000:], pixels[:1000], neighbours=3)
    np.testing.assert_allclose(found, (0.9, 0.9), atol=0.04)


def test_bad_input():
    a = gaussian(5, 3, 0)
    with pytest.raises(ValueError, match=r"got \(5, 3\) and \(5, 2\)"):
        precision_recall(a, a[:, :2])
    with pytest.raises(ValueError, match="neighbours=5 is out of range: use 1 to 4"):
        precision_recall(a, a, neighbours=5)
    with pytest.raises(ValueError, match="neighbours=0"):
        precision_recall(a, a, neighbours=0)


def density_by_definition(real, fake, k) -> tuple[float, float]:
    """[Naeem20, eq. 4-5], one pair at a time in float64."""
    among = np.linalg.norm(real[:, None].astype(float) - real[None].astype(float), axis=-1)
    radius = np.sort(among, axis=1)[:, k]
    inside = np.linalg.norm(real[:, None].astype(float) - fake[None].astype(float), axis=-1) <= radius[:, None]
    return inside.sum() / (k * len(fake)), inside.any(axis=1).mean()


@pytest.mark.parametrize(("real", "fake", "width", "k"), [(60, 40, 2, 3), (33, 3, 5, 5)])
def test_density_and_coverage_by_definition(real, fake, width, k):
    a, b = gaussian(real, width, 0), gaussian(fake, width, 1, mean=0.4, std=0.8)
    np.testing.assert_allclose(density_coverage(a, b, neighbours=k), density_by_definition(a, b, k), atol=1e-6)


def test_density_and_coverage_by_hand():
    """Reals 0, 1, 3, 10 with k=1 have radii 1, 1, 2, 7; of the fakes -1.5, 2, 5, 97, the second lies in the balls of 1
    and 3, the third in those of 3 and 10."""
    real = np.array([[0.0], [1.0], [3.0], [10.0]], np.float32)
    fake = np.array([[-1.5], [2.0], [5.0], [97.0]], np.float32)
    assert density_coverage(real, fake, neighbours=1) == (1.0, 0.75)


def test_alike_is_about_one():
    """With k=5 coverage of like sets is 1 - 2^-5 on average [Naeem20, lemma 2]."""
    found = density_coverage(gaussian(800, 3, 0), gaussian(800, 3, 1), neighbours=5)
    assert found.density == pytest.approx(1, abs=0.07)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_outliers_among_the_reals_buy_precision_and_no_coverage():
    """Their balls are huge, and hold fakes that are nowhere near the data; but there are few of them."""
    real = np.concatenate([gaussian(396, 3, 0), gaussian(4, 3, 2, std=40.0)])
    far = gaussian(400, 3, 1, mean=8.0)
    assert precision_recall(real, far, neighbours=5).precision > 0.9
    assert density_coverage(real, far, neighbours=5).coverage <= 4 / 400


def test_density_and_coverage_need_more_reals_than_neighbours():
    a = gaussian(5, 3, 0)
    with pytest.raises(ValueError, match="neighbours=5 is out of range: use 1 to 4"):
        density_coverage(a, a)
    with pytest.raises(ValueError, match=r"got \(5, 3\) and \(0, 3\)"):
        density_coverage(a, a[:0], neighbours=2)


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number(metric, value):
    real, fake = gaussian(20, 3, 0), gaussian(20, 3, 1)
    for name, points in (("real", real), ("fake", fake)):
        spoilt = points.copy()
        spoilt[7, 1] = value
        pair = (spoilt, fake) if name == "real" else (real, spoilt)
        with pytest.raises(FloatingPointError, match=f"1 of 20 {name} features are not finite, the first is number 7"):
            metric(*pair)
