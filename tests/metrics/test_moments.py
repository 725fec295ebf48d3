"""Streamed moments against those of the whole, and what they cost."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.metrics import moments

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
FEATURES = (3 + RNG.normal(size=(257, 6)) @ RNG.normal(size=(6, 6))).astype(np.float32)


def assert_same(found, expected, rtol=1e-12):
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=rtol)
    np.testing.assert_allclose(found.outer, expected.outer, rtol=rtol, atol=rtol * np.abs(expected.outer).max())


@pytest.mark.parametrize("size", [1, 2, 64, 300])
def test_batches_do_not_show(size):
    found = moments.of(FEATURES[i : i + size] for i in range(0, len(FEATURES), size))
    np.testing.assert_allclose(found.mean, FEATURES.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(found), np.cov(FEATURES.astype(float), rowvar=False), rtol=1e-10)


def test_merging_is_associative_and_commutative():
    a, b, c = (moments.of([part]) for part in np.split(FEATURES, [100, 101]))
    left, right = moments.merge(moments.merge(a, b), c), moments.merge(a, moments.merge(b, c))
    assert_same(left, right)
    assert_same(moments.merge(c, moments.merge(b, a)), right)
    assert_same(left, moments.of([FEATURES]))
    assert_same(moments.merge(moments.empty(6), a), a, rtol=1e-15)
    assert_same(moments.merge(a, moments.empty(6)), a, rtol=1e-15)


def test_digits_that_float32_would_lose():
    """Mean 1000, standard deviation 0.1: float32 sums of squares have no digit of the variance left."""
    features = (1000 + 0.1 * RNG.normal(size=(4000, 3))).astype(np.float32)
    exact = features.astype(np.float64).var(axis=0, ddof=1)
    found = np.diag(moments.covariance(moments.of(np.split(features, 40))))
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    naive = (jnp.asarray(features) ** 2).mean(axis=0) - jnp.asarray(features).mean(axis=0) ** 2
    assert np.abs(naive / exact - 1).min() > 0.9


def test_what_is_no_feature_is_refused():
    with pytest.raises(ValueError, match=r"width 6 take features \[N 6\], got \(257, 5\)"):
        moments.add(moments.empty(6), FEATURES[:, :5])
    with pytest.raises(ValueError, match="width 6 and 5"):
        moments.merge(moments.empty(6), moments.empty(5))
    with pytest.raises(ValueError, match="2 or more pictures, got 1"):
        moments.covariance(moments.of([FEATURES[:1]]))
    with pytest.raises(ValueError, match="no features"):
        moments.of([])
    bad = FEATURES[:4].copy()
    bad[2, 1] = np.nan
    with pytest.raises(FloatingPointError, match="1 of 4 features are not finite, the first is number 2"):
        moments.add(moments.empty(6), bad)


FULL_SIZE = r"""
import re
import numpy as np
from flaxgen.metrics import fid, moments
rng = np.random.default_rng(0)
a, b = (moments.of(rng.standard_normal((250, 2048), np.float32) for _ in range(200)) for _ in range(2))
print(fid.frechet_distance(a, b), 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]))
"""


@pytest.mark.slow
def test_two_sets_of_50000_fit_in_memory():
    """FID of 50,000 x 2048 against as many in less than 1.5 GiB: the features alone would be 0.8 GB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", FULL_SIZE], env=environment, capture_output=True, text=True, check=True
    )
    distance, peak = map(float, done.stdout.split())
    assert peak < 1.5 * 2**30
    # two samples of one Gaussian: D^2 / 4 (1/n + 1/m) to first order from covariances, and D (1/n + 1/m) from means
    assert distance == pytest.approx((2048**2 / 4 + 2048) * 2 / 50_000, rel=0.05)
