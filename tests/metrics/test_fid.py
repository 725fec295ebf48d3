import itertools
import logging

import numpy as np
import pytest

from flaxgen.metrics import fid, moments
from flaxgen.metrics.fid import frechet_distance
from flaxgen.metrics.moments import Moments

RNG = np.random.default_rng(0)


def known(mean, covariance) -> Moments:
    """As if 1,000 features had exactly these moments."""
    return Moments(1000, np.asarray(mean, float), 999 * np.asarray(covariance, float))


def gaussian(count: int, mean, root) -> np.ndarray:
    """A sample whose own moments are `mean` and root root^T: whitened first."""
    x = RNG.normal(size=(count, len(root)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return white @ np.asarray(root).T + mean


def of(features) -> Moments:
    return moments.of(np.array_split(features, 7))


def test_one_dimension():
    """(mean difference)^2 + (difference of standard deviations)^2."""
    assert frechet_distance(known([1.0], [[4.0]]), known([4.0], [[0.25]])) == pytest.approx(9 + 1.5**2, rel=1e-12)


def test_two_dimensions_that_do_not_commute():
    """Of 2 x 2 matrices tr((AB)^(1/2)) = (tr(AB) + 2 det(AB)^(1/2))^(1/2)."""
    a, b = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[0.5, -0.3], [-0.3, 1.5]])
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = 0.25 + np.trace(a + b) - 2 * root
    assert frechet_distance(known([0.5, 0.0], a), known([0.0, 0.0], b)) == pytest.approx(expected, rel=1e-10)


def test_samples_with_known_moments():
    """B = C A C with C symmetric: then (A B)^(1/2) has the trace of A C."""
    a_root, c = np.tril(RNG.normal(size=(5, 5))) + 3 * np.eye(5), RNG.normal(size=(5, 5))
    c = c @ c.T / 5 + np.eye(5)
    shift = np.arange(5.0)
    a, b = gaussian(500, 0, a_root), gaussian(400, shift, c @ a_root)
    a_cov = a_root @ a_root.T
    expected = (shift**2).sum() + np.trace(a_cov + c @ a_cov @ c - 2 * a_cov @ c)
    assert frechet_distance(of(a.astype(np.float32)), of(b.astype(np.float32))) == pytest.approx(expected, rel=1e-5)


def test_fewer_pictures_than_features_is_exact_and_said(caplog):
    """tr((AB)^(1/2)) is the nuclear norm of X Y^T of the centred sets, whatever their rank."""
    x, y = RNG.normal(size=(9, 40)), RNG.normal(size=(12, 40)) * 2
    with caplog.at_level(logging.WARNING):
        found = frechet_distance(of(x), of(y))
    assert "9 pictures for 40 features" in caplog.text
    cx, cy = (x - x.mean(axis=0)) / np.sqrt(8), (y - y.mean(axis=0)) / np.sqrt(11)
    means = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    expected = means + (cx**2).sum() + (cy**2).sum() - 2 * np.linalg.svd(cx @ cy.T, compute_uv=False).sum()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "width"), [(500, 20), (30, 100)])
def test_of_a_set_with_itself_is_nothing_and_order_does_not_matter(count, width):
    x, y = RNG.normal(size=(count, width)), 1 + RNG.normal(size=(count + 3, width))
    assert frechet_distance(of(x), of(x)) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(of(x), of(y)) == pytest.approx(frechet_distance(of(y), of(x)), rel=1e-9)


def test_constant_features_have_no_covariance():
    assert fid.trace_of_root(np.zeros((3, 3)), np.eye(3)) == 0


def test_turning_and_scaling():
    """Invariant under rotations, quadratic in the units."""
    x, y = RNG.normal(size=(200, 4)), 0.5 + 2 * RNG.normal(size=(200, 4))
    turn, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    assert frechet_distance(of(x @ turn), of(y @ turn)) == pytest.approx(frechet_distance(of(x), of(y)), rel=1e-9)
    assert frechet_distance(of(3 * x), of(3 * y)) == pytest.approx(9 * frechet_distance(of(x), of(y)), rel=1e-9)


def pictures() -> np.ndarray:
    """Four kinds of 8 x 8 pictures, equally many: a bar at one of four places, of random brightness, with noise."""
    place, bright = np.arange(800) % 4, RNG.uniform(0.5, 1, size=800)
    images = 0.02 * RNG.normal(size=(800, 8, 8))
    for i in range(800):
        images[i, :, 2 * place[i] : 2 * place[i] + 2] += bright[i]
    return images


def blurred(images: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        images = (2 * images + np.roll(images, 1, axis=2) + np.roll(images, -1, axis=2)) / 4
    return images


@pytest.mark.parametrize(
    "harm",
    [
        lambda images, strength: blurred(images, 2 * strength),
        lambda images, strength: images + 0.1 * strength * np.random.default_rng(1).normal(size=images.shape),
        lambda images, strength: images[np.arange(800) % 4 >= strength],
    ],
    ids=["blur", "noise", "dropped modes"],
)
def test_grows_with_what_is_done_to_the_pictures(harm):
    images = pictures()
    real = of(images.reshape(800, 64))
    found = [frechet_distance(real, of((x := harm(images, strength)).reshape(len(x), 64))) for strength in range(4)]
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert all(b > 1.2 * a for a, b in itertools.pairwise(found[1:]))
    assert found[1] > 0.01


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="width 1 and 2"):
        frechet_distance(known([0.0], [[1.0]]), known([0.0, 0.0], np.eye(2)))
    with pytest.raises(ValueError, match="2 or more pictures, got 1"):
        frechet_distance(known([0.0], [[1.0]]), Moments(1, np.zeros(1), np.zeros((1, 1))))
