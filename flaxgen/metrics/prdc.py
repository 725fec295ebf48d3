"""How much of each of two sample sets lies on the other's manifold: improved precision and recall [Kynk19], density and
coverage [Naeem20].

Both sets are held as float32 on one device, and BLOCK rows of the matrix of distances: for 50,000 x 2048 features of
each set that is 0.8 GB and 0.2 GB, where the whole matrix would be 10 GB.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

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

    Any features will do, pixels included. The two sets are compared as they are, so for published figures take equally
    many of both.

    Raises:
        ValueError: if the widths differ, or a set has no more than `neighbours` points.
        FloatingPointError: if a feature is not finite.
    """
    real, fake = _centred(real, fake, neighbours, min(len(real), len(fake)))
    return PrecisionRecall(
        precision=float(on_manifold(fake, real, neighbours).mean()),
        recall=float(on_manifold(real, fake, neighbours).mean()),
    )


class DensityCoverage(NamedTuple):
    """How many real balls a fake lies in, over `neighbours` (0 and up; about 1 where the two are alike), and the share
    in [0, 1] of the real balls with a fake in them."""

    density: float
    coverage: float


def density_coverage(
    real: Float[Array | np.ndarray, "N D"], fake: Float[Array | np.ndarray, "M _"], *, neighbours: int = 5
) -> DensityCoverage:
    """[Naeem20, eq. 4-5]: balls around the reals only, so that one outlier among the fakes does not stretch a manifold.

    Raises:
        ValueError: if the widths differ, there are no more than `neighbours` reals, or no fakes.
        FloatingPointError: if a feature is not finite.
    """
    real, fake = _centred(real, fake, neighbours, len(real))
    hits = np.asarray(balls_hit(fake, real, neighbours), np.float64)
    return DensityCoverage(
        density=float(hits.mean() / neighbours), coverage=float(holds_any(real, fake, neighbours).mean())
    )


def _centred(real, fake, neighbours: int, smallest: int) -> tuple[Float[Array, "N D"], Float[Array, "M D"]]:
    """Both sets about the mean of the real one: distances come from differences of squares, which lose fewer digits
    there. Checks them first."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not len(fake):
        raise ValueError(f"neighbours are found among [N D] and [M D], got {real.shape} and {fake.shape}")
    if not 1 <= neighbours < smallest:
        raise ValueError(
            f"neighbours={neighbours} is out of range: use 1 to {smallest - 1} for {len(real)} and {len(fake)} points"
        )
    for name, points in (("real", real), ("fake", fake)):
        (bad,) = np.nonzero(~np.isfinite(np.asarray(points)).all(axis=1))
        if len(bad):
            raise FloatingPointError(
                f"{len(bad)} of {len(points)} {name} features are not finite, the first is number {bad[0]}"
            )
    center = np.asarray(np.mean(np.asarray(real), axis=0, dtype=np.float64), np.float32)
    return jnp.asarray(real, jnp.float32) - center[None], jnp.asarray(fake, jnp.float32) - center[None]


def on_manifold(queries: Float[Array, "M D"], points: Float[Array, "N D"], neighbours: int) -> Bool[Array, " M"]:
    """Whether each query lies in the ball of at least one point, of radius its `neighbours`-th nearest other point."""
    return balls_hit(queries, points, neighbours) > 0


@partial(jax.jit, static_argnames="neighbours")
def balls_hit(queries: Float[Array, "M D"], points: Float[Array, "N D"], neighbours: int) -> Int[Array, " M"]:
    """In the balls of how many points each query lies, of radius their `neighbours`-th nearest other point."""
    radii = squared_radii(points, neighbours)

    def count(rows):
        return (squared_distances(rows, points) <= radii[None] + _rounding(rows)[:, None]).sum(axis=1)

    return _by_blocks(count, queries)


@partial(jax.jit, static_argnames="neighbours")
def holds_any(points: Float[Array, "N D"], queries: Float[Array, "M D"], neighbours: int) -> Bool[Array, " N"]:
    """Whether there is a query in the ball of each point, of radius its `neighbours`-th nearest other point."""

    def any_in(rows):
        nearest = squared_distances(rows, queries).min(axis=1)
        return nearest <= _squared_radius(rows, points, neighbours) + _rounding(rows)

    return _by_blocks(any_in, points)


def squared_radii(points: Float[Array, "N D"], neighbours: int) -> Float[Array, " N"]:
    """The squared distance of each point to its `neighbours`-th nearest other one."""
    return _by_blocks(lambda rows: _squared_radius(rows, points, neighbours), points)


def _squared_radius(rows, points, neighbours: int) -> Float[Array, " B"]:
    nearest, _ = jax.lax.top_k(-squared_distances(rows, points), neighbours + 1)  # the nearest is the point itself
    return -nearest[:, -1]


def _rounding(rows: Float[Array, "B D"]) -> Float[Array, " B"]:
    return 4 * jnp.finfo(jnp.float32).eps * (rows**2).sum(axis=1)


def squared_distances(a: Float[Array, "M D"], b: Float[Array, "N D"]) -> Float[Array, "M N"]:
    """|a_i - b_j|^2, never negative."""
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * product, 0)


def _by_blocks(fn, rows: Float[Array, "N D"]):
    """`fn` of BLOCK rows at a time, its outputs joined."""
    return jax.lax.map(lambda row: fn(row[None])[0], rows, batch_size=min(BLOCK, len(rows)))
