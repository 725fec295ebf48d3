"""Maximum mean discrepancies [Gretton12]: KID, with a cubic kernel on Inception features [Binkowski18], and CMMD, with
a Gaussian one on CLIP embeddings [Jayasumana24]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BLOCK = 1024
"""Rows compared at a time in CMMD: memory is BLOCK times the number of points of the other set."""
SIGMA, SCALE = 10.0, 1000.0
"""Bandwidth of CMMD's kernel, and what the squared discrepancy is multiplied with [Jayasumana24, sec. 5]."""


class Kid(NamedTuple):
    """Mean over the subsets, and their standard deviation; the error of the mean is `std` / sqrt(subsets) at best, as
    the subsets share pictures."""

    mean: float
    std: float


def kid(
    real: Float[Array | np.ndarray, "N D"],
    fake: Float[Array | np.ndarray, "M _"],
    *,
    seed: int,
    subsets: int = 100,
    subset_size: int = 1000,
) -> Kid:
    """The mean of `polynomial_mmd` over random subsets of `subset_size` of each set [Binkowski18, sec. 4].

    Holds both sets, and three matrices of subset_size^2 in float64. Negative values say: as near as can be measured.

    Raises:
        ValueError: if the widths differ, `subsets` is below 1, or `subset_size` is not 2 to the smaller set's size.
    """
    _check(real, fake)
    if subsets < 1 or not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(
            f"subsets={subsets} of subset_size={subset_size}: expected 1 or more, of 2 to "
            f"{min(len(real), len(fake))} pictures, with sets of {len(real)} and {len(fake)}"
        )
    real, fake, rng = np.asarray(real), np.asarray(fake), np.random.default_rng(seed)

    def subset(features):
        return features[rng.choice(len(features), subset_size, replace=False)]

    found = [polynomial_mmd(subset(real), subset(fake)) for _ in range(subsets)]
    return Kid(float(np.mean(found)), float(np.std(found)))


def polynomial_mmd(x: Float[Array | np.ndarray, "N D"], y: Float[Array | np.ndarray, "M _"]) -> float:
    """The unbiased estimate of the squared discrepancy for k(a, b) = (a.b / D + 1)^3 [Gretton12, eq. 3; Binkowski18].

    In float64 on the host, because it is a small difference of large means: in float32, sets that differ by 1e-3 lose
    the fourth digit. Two sets of 1000 x 2048 take a second or less on two cores.

    Raises:
        ValueError: if the widths differ, or a set has fewer than 2 points.
    """
    _check(x, y)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    width, n, m = x.shape[1], len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"the unbiased discrepancy needs 2 or more points of each set, got {n} and {m}")

    def kernel(a, b):
        return (a @ b.T / width + 1) ** 3

    def mean_of_others(a):
        among = kernel(a, a)
        return (among.sum() - np.trace(among)) / (len(a) * (len(a) - 1))

    return float(mean_of_others(x) + mean_of_others(y) - 2 * kernel(x, y).mean())


def cmmd(real: Float[Array | np.ndarray, "N D"], fake: Float[Array | np.ndarray, "M _"]) -> float:
    """The squared discrepancy of CLIP image embeddings for a Gaussian kernel, times 1000 [Jayasumana24].

    As the authors' code has it: the estimate that counts each point against itself too, so it is 0 for equal sets and
    never negative. The embeddings are normalised here. Holds both sets and BLOCK rows of distances.

    Raises:
        ValueError: if the widths differ or a set is empty.
    """
    _check(real, fake)
    x, y = (_normalised(jnp.asarray(points, jnp.float32)) for points in (real, fake))
    return SCALE * (2 * mean_falloff(x, y) - mean_falloff(x, x) - mean_falloff(y, y))


def mean_falloff(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> float:
    """Mean of 1 - k over all pairs of points of length 1.

    The kernel is within 2% of 1 there, so its distance from 1 is what float32 can hold; summed in float64.
    """
    return float(np.asarray(_row_means(x, y), np.float64).mean())


@jax.jit
def _row_means(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, " N"]:
    def row_mean(row):
        half_squared = 1 - jnp.matmul(y, row, precision=jax.lax.Precision.HIGHEST)
        return -jnp.expm1(-half_squared / SIGMA**2).mean()

    return jax.lax.map(row_mean, x, batch_size=min(BLOCK, len(x)))


def _normalised(points: Float[Array, "N D"]) -> Float[Array, "N D"]:
    return points / jnp.maximum(jnp.linalg.norm(points, axis=1, keepdims=True), jnp.finfo(points.dtype).tiny)


def _check(x: Float[Array | np.ndarray, "..."], y: Float[Array | np.ndarray, "..."]) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"a discrepancy compares [N D] with [M D], got {x.shape} and {y.shape}")
