import numpy as np
import pytest

from flaxgen.metrics.pairs import mean_over_pairs


def brightness_apart(a, b):
    return np.abs(a.astype(float) - b).mean(axis=(1, 2, 3))


def test_every_pair_counts_the_same_whatever_the_batches():
    a = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 3), dtype=np.uint8)
    found = mean_over_pairs(brightness_apart, [(a[:5], 0 * a[:5]), (a[5:], 0 * a[5:])])
    assert found == pytest.approx(a.mean(), rel=1e-12)


def test_no_pairs_have_no_mean():
    with pytest.raises(ValueError, match="no pairs"):
        mean_over_pairs(brightness_apart, [])
