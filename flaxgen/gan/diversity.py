"""Whether a generator draws all that the data have, by one batch of each."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen import parallel
from flaxgen.gan.state import Examples

TINY = 1e-12
LARGEST = 512
"""Examples that are compared: their distances are of all pairs."""
SIDE = 8
"""Pixels a side, at least, that pictures are averaged to before they are compared; those below twice that stay."""


def spread(fake: Examples, real: Examples, axis_name: str | None = None) -> Float[Array, ""]:
    """The root mean square distance between two fakes of the batch over that between two real examples, 0 where all
    fakes are one; such a distance is sqrt(2 tr Cov). Two modes that lie opposite each other are as far as eight."""

    def variance(examples):
        mean = parallel.mean_over(axis_name, examples.mean(0, keepdims=True))
        return parallel.mean_over(axis_name, jnp.mean((examples - mean) ** 2))

    return jnp.sqrt(variance(fake) / jnp.maximum(variance(real), TINY))


def diversity(fake: Examples, real: Examples, axis_name: str | None = None) -> Float[Array, ""]:
    """How many different real examples are some fake's nearest, over how many are when as many real ones stand in for
    the fakes: 1 on average for a generator that draws as the data do, less the fewer modes it has, and 0 where all
    fakes have one nearest. Each half of the batch is looked up in the other, and the first of each is not counted.

    Its standard deviation is about 0.25 in a batch of 16, 0.1 in one of 64 and 0.04 in one of 512.
    """
    fake, real = (_gathered(_small(examples), axis_name) for examples in (fake, real))
    half = max(len(real) // 2, 1)
    first, second = real[:half], real[-half:]
    found = _different(fake[:half], second) + _different(fake[-half:], first)
    expected = _different(first, second) + _different(second, first)
    return (found - 2) / jnp.maximum(expected - 2, 1)


def _small(examples: Examples) -> Float[Array, "B N"]:
    """The examples as vectors: points as they are, pictures averaged over squares."""
    if examples.ndim == 4:
        size = max(min(examples.shape[1:3]) // SIDE, 1)
        window = (1, size, size, 1)
        examples = jax.lax.reduce_window(examples, 0.0, jax.lax.add, window, window, "VALID") / size**2
    return examples.reshape(len(examples), -1)


def _gathered(vectors: Float[Array, "B N"], axis_name: str | None) -> Float[Array, "C N"]:
    """Those of all devices, in the order of the whole batch."""
    whole = vectors if axis_name is None else jax.lax.all_gather(vectors, axis_name, tiled=True)
    return whole[:LARGEST]


def _different(queries: Float[Array, "Q N"], among: Float[Array, "R N"]) -> Int[Array, ""]:
    """How many of `among` are the nearest of some query."""
    inner = jnp.matmul(queries, among.T, precision="highest")
    nearest = jnp.argmin((among**2).sum(1)[None] - 2 * inner, axis=1)
    return jnp.zeros(len(among), jnp.int32).at[nearest].set(1).sum()
