"""Improved precision and recall: how much of each of two sample sets lies on the other's manifold [Kynk19]."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

BLOCK = 1024
"""Rows compared at a time: memory is BLOCK times the number of points of the other set."""


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of the fakes that lie on the real manifold, of the reals that lie on the fake manifold."""

    precision: float
    recall: float


def precision_recall(
    real: Float[Array | np.ndarray, "N D"], fake: Float[Array | np.ndarray, "M _"], *, neighbours: int = 3
) -> PrecisionRecall:
    """[Kynk19, eq. 1-2]: a manifold is the union of the balls around its points that reach the k-th nearest other one.

    Any features will do, pixels included; they should be finite. The two sets are compared as they are, so for
    published figures take equally many of both.

    Raises:
        ValueError: if the widths differ, or a set has no more than `neighbours` points.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"precision and recall compare [N D] with [M D], got {real.shape} and {fake.shape}")
    if not 1 <= neighbours < min(len(real), len(fake)):
        raise ValueError(
            f"neighbours={neighbours} is out of range: use 1 to {min(len(real), len(fake)) - 1} "
            f"for {len(real)} and {len(fake)} points"
        )
    # distances come from differences of squares, which lose fewer digits about the common centre
    center = np.mean(np.asarray(real, np.float64), axis=0).astype(np.float32)
    real, fake = jnp.asarray(real, jnp.float32) - center[None], jnp.asarray(fake, jnp.float32) - center[None]
    return PrecisionRecall(
        precision=float(on_manifold(fake, real, neighbours).mean()),
        recall=float(on_manifold(real, fake, neighbours).mean()),
    )


@partial(jax.jit, static_argnames="neighbours")
def on_manifold(queries: Float[Array, "M D"], points: Float[Array, "N D"], neighbours: int) -> Bool[Array, " M"]:
    """Whether each query lies in the ball of at least one point, of radius its `neighbours`-th nearest other point."""

    def squared_radius(rows):
        nearest, _ = jax.lax.top_k(-squared_distances(rows, points), neighbours + 1)  # the nearest is the point itself
        return -nearest[:, -1]

    def inside(rows):
        rounding = 4 * jnp.finfo(jnp.float32).eps * (rows**2).sum(axis=1)
        return (squared_distances(rows, points) <= squared_radii[None] + rounding[:, None]).any(axis=1)

    squared_radii = _by_blocks(squared_radius, points)
    return _by_blocks(inside, queries)


def squared_distances(a: Float[Array, "M D"], b: Float[Array, "N D"]) -> Float[Array, "M N"]:
    """|a_i - b_j|^2, never negative."""
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * product, 0)


def _by_blocks(fn, rows: Float[Array, "N D"]):
    """`fn` of BLOCK rows at a time, its outputs joined."""
    return jax.lax.map(lambda row: fn(row[None])[0], rows, batch_size=min(BLOCK, len(rows)))
