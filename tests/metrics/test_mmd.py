import itertools

import numpy as np
import pytest

from flaxgen.metrics import mmd
from flaxgen.metrics.mmd import cmmd, kid, polynomial_mmd


def normal(count: int, width: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return (mean + np.random.default_rng(seed).standard_normal((count, width))).astype(np.float32)


def pairwise(x, y, kernel, same: bool) -> float:
    """Mean of the kernel, one pair at a time; of a set with itself without the pairs of one point."""
    pairs = itertools.permutations(x, 2) if same else itertools.product(x, y)
    return float(np.mean([kernel(a.astype(float), b.astype(float)) for a, b in pairs]))


def test_polynomial_pair_by_pair():
    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    x, y = normal(7, 3, 0), normal(5, 3, 1, mean=0.5)
    expected = pairwise(x, x, kernel, True) + pairwise(y, y, kernel, True) - 2 * pairwise(x, y, kernel, False)
    assert polynomial_mmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_polynomial_of_two_gaussians():
    """N(0, 1) and N(m, 1) in one dimension: the kernel's features are 1, sqrt(3) x, sqrt(3) x^2 and x^3, whose means
    differ by 0, sqrt(3) m, sqrt(3) m^2 and m^3 + 3 m."""
    m = 0.4
    expected = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    found = [polynomial_mmd(normal(500, 1, 2 * i), normal(500, 1, 2 * i + 1, mean=m)) for i in range(40)]
    assert abs(np.mean(found) - expected) < 3 * np.std(found, ddof=1) / np.sqrt(40)
    assert np.std(found) < 0.5 * expected


def test_unbiased():
    """Over 400 pairs of sets of one distribution the mean is 0 within three of its standard errors, and the estimate
    that counts each point against itself would be seen to be off."""
    found = [polynomial_mmd(normal(20, 4, 2 * i), normal(25, 4, 2 * i + 1)) for i in range(400)]
    error = np.std(found, ddof=1) / np.sqrt(400)
    assert abs(np.mean(found)) < 3 * error
    bias = (np.mean((1 + (normal(2000, 4, 0) ** 2).sum(1) / 4) ** 3) - 1) * (1 / 20 + 1 / 25)
    assert bias > 10 * error


def test_kid_is_the_mean_over_subsets_and_follows_from_the_seed():
    x, y = normal(60, 4, 0), normal(50, 4, 1, mean=0.5)
    once = kid(x, y, seed=0, subsets=40, subset_size=20)
    assert once == kid(x, y, seed=0, subsets=40, subset_size=20)
    assert once != kid(x, y, seed=1, subsets=40, subset_size=20)
    assert abs(once.mean - polynomial_mmd(x, y)) < 4 * once.std / np.sqrt(40)
    # a subset that is the whole set: order alone is left
    whole = kid(x[:50], y, seed=0, subsets=3, subset_size=50)
    assert whole.mean == pytest.approx(polynomial_mmd(x[:50], y), rel=1e-9)
    assert whole.std == pytest.approx(0, abs=1e-9)


def test_small_differences_keep_their_digits():
    """Far from the origin the kernel is 5e5 and its differences are millions of times smaller."""
    x, y = normal(200, 16, 0, mean=9.0), normal(200, 16, 1, mean=9.0)
    a, b = x.astype(np.longdouble), y.astype(np.longdouble)

    def kernel(p, q):
        return (p @ q.T / 16 + 1) ** 3

    def inside(p):
        return (kernel(p, p).sum() - np.trace(kernel(p, p))) / (200 * 199)

    expected = float(inside(a) + inside(b) - 2 * kernel(a, b).mean())
    assert polynomial_mmd(x, y) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "m"), [(9, 6), (30, 30)])
def test_cmmd_pair_by_pair(n, m):
    x, y = normal(n, 5, 0), normal(m, 5, 1, mean=0.3)
    u, v = (z.astype(float) / np.linalg.norm(z.astype(float), axis=1, keepdims=True) for z in (x, y))

    def mean(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=-1) / 200).mean()

    expected = 1000 * (mean(u, u) + mean(v, v) - 2 * mean(u, v))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-4)


def test_cmmd_of_two_directions():
    """One point each, opposite: 2 - 2 exp(-4 / 200), times 1000; the lengths do not count."""
    found = cmmd(np.array([[3.0, 0.0]], np.float32), np.array([[-0.1, 0.0]], np.float32))
    assert found == pytest.approx(2000 * -np.expm1(-0.02), rel=1e-5)


def test_cmmd_identities(monkeypatch):
    monkeypatch.setattr(mmd, "BLOCK", 16)  # divides neither; shapes of their own
    x, y = normal(41, 6, 0), normal(39, 6, 1)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-6)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), abs=1e-5)
    found = [cmmd(x, normal(39, 6, 1, mean=shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset_size": 51}, "of 2 to 50 pictures, with sets of 60 and 50"),
        ({"subset_size": 1}, "subset_size=1"),
        ({"subsets": 0}, "subsets=0"),
    ],
)
def test_subsets_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        kid(normal(60, 4, 0), normal(50, 4, 1), **{"seed": 0, "subset_size": 20} | settings)


def test_bad_input():
    x = normal(5, 3, 0)
    for distance in (polynomial_mmd, cmmd):
        for bad in (x[:, :2], x[:0]):
            with pytest.raises(ValueError, match="compares"):
                distance(x, bad)
    with pytest.raises(ValueError, match="2 or more points of each set, got 5 and 1"):
        polynomial_mmd(x, x[:1])
