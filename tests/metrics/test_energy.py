import math

import numpy as np
import pytest
import scipy.stats

from flaxgen.metrics import energy
from flaxgen.metrics.energy import energy_distance


def gaussian(count: int, width: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return (mean + np.random.default_rng(seed).standard_normal((count, width))).astype(np.float32)


def test_two_points():
    """2 |x - y|, and nothing within the sets."""
    assert energy_distance(np.zeros((1, 2), np.float32), np.array([[3.0, 4.0]], np.float32)) == pytest.approx(10)


def test_by_hand():
    """{0, 2} against {1}: between them 1, within the first (0 + 2 + 2 + 0) / 4 = 1: 2 - 1 = 1."""
    assert energy_distance(np.array([[0.0], [2.0]]), np.array([[1.0]])) == pytest.approx(1)


@pytest.mark.parametrize(("n", "m"), [(3, 5), (300, 200), (1000, 513)])
def test_against_scipy_in_one_dimension(n, m):
    """SciPy gives the square root, and knows one dimension only."""
    x, y = gaussian(n, 1, 0), gaussian(m, 1, 1, mean=0.3)
    expected = scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    assert energy_distance(x, y) == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize("block", [16, 256])
def test_brute_force_in_many_dimensions(block, monkeypatch):
    """Shapes of their own for each block, so that nothing compiled with the other is used."""
    monkeypatch.setattr(energy, "BLOCK", block)
    x, y = gaussian(60 + block, 5, 0).astype(float), gaussian(41, 5, 1, mean=0.2).astype(float)

    def mean(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=-1).mean()

    assert energy_distance(x, y) == pytest.approx(2 * mean(x, y) - mean(x, x) - mean(y, y), abs=1e-6)


def test_closed_form_of_two_gaussians():
    """N(0, 1) and N(m, 1): E|X - Y| of N(m, 2) is folded normal, E|X - X'| = 2 / sqrt(pi)."""
    m, n = 1.5, 4000
    folded = 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    expected = 2 * folded - 4 / math.sqrt(math.pi)
    # both V-statistics count n zeros on their diagonals
    bias = 2 * (2 / math.sqrt(math.pi)) / n
    assert energy_distance(gaussian(n, 1, 0), gaussian(n, 1, 1, mean=m)) == pytest.approx(expected + bias, rel=0.08)


def test_identities():
    x, y = gaussian(200, 3, 0), gaussian(150, 3, 1, mean=0.5)
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-7)
    assert energy_distance(x, y) == pytest.approx(energy_distance(y, x), abs=1e-6)
    turn, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    assert energy_distance(x @ turn + 4, y @ turn + 4) == pytest.approx(energy_distance(x, y), abs=1e-5)
    assert energy_distance(3 * x, 3 * y) == pytest.approx(3 * energy_distance(x, y), rel=1e-4)


def test_grows_with_distance_and_is_never_negative():
    x = gaussian(300, 2, 0)
    found = [energy_distance(x, gaussian(300, 2, 1, mean=shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found)
    assert found[0] >= 0


def test_bad_input():
    x = gaussian(5, 3, 0)
    for bad in (x[:, :2], x[:0]):
        with pytest.raises(ValueError, match="compares"):
            energy_distance(x, bad)
