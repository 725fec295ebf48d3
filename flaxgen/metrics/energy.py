"""The energy distance between two sample sets [Szekely13]."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BLOCK = 256
"""Rows compared at a time: memory is at most BLOCK times the size of the other set."""


def energy_distance(x: Float[Array | np.ndarray, "N D"], y: Float[Array | np.ndarray, "M _"]) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| [Szekely13, eq. 5], as a V-statistic: 0 for equal sets, never negative, and
    in the units of the data. Some write its square root.

    Meant for up to some 10,000 points of few dimensions; the differences are taken one by one, for their digits.

    Raises:
        ValueError: if a set is empty or the widths differ.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"the energy distance compares [N D] with [M D], got {x.shape} and {y.shape}")
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)


def mean_distance(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> float:
    """Mean of |x_i - y_j| over all pairs, summed in float64 because energies are small differences of it."""
    return float(np.asarray(_row_means(x, y), np.float64).mean())


@jax.jit
def _row_means(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, " N"]:
    def row_mean(row):
        return jnp.sqrt(((row[None] - y) ** 2).sum(axis=1)).mean()

    return jax.lax.map(row_mean, x, batch_size=min(BLOCK, len(x)))
