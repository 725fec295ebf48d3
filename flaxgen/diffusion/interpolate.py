"""Ways between embeddings and between latents: along great circles, with one angle a vector."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import Scalar

ANTIPARALLEL = 1e-6
"""Two unit vectors whose sum is shorter than this are opposite as far as float32 can tell."""


def normalise(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Vectors of length 1 along the last axis; zero stays zero."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)  # squares of what is left neither overflow nor vanish
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1)


def slerp(a: Float[Array, "... D"], b: Float[Array, "... D"], weight: Scalar) -> Float[Array, "... D"]:
    """From a (weight 0) to b (weight 1) at a steady pace: the direction along the great circle [Shoemake85], the norm
    linearly.

    One angle a vector, and a traced weight, which may also lie outside [0, 1]. Between opposite vectors every half of
    a great circle is as short: the one taken goes by the coordinate axis that `a` has least of. A zero vector has the
    direction of the other.
    """
    norm_a, norm_b = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    unit_a, unit_b = normalise(a), normalise(b)
    unit_a, unit_b = jnp.where(norm_a > 0, unit_a, unit_b), jnp.where(norm_b > 0, unit_b, unit_a)
    total, difference = unit_a + unit_b, unit_b - unit_a
    length_total, length_difference = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (total, difference))
    # sum and difference are at right angles, and keep their digits near 0 and pi, where acos loses half of them
    angle = 2 * jnp.arctan2(length_difference, length_total)
    middle = jnp.where(length_total > ANTIPARALLEL, normalise(total), _orthogonal(unit_a))
    turn = (weight - 0.5) * angle
    direction = jnp.cos(turn) * middle + jnp.sin(turn) * normalise(difference)
    return ((1 - weight) * norm_a + weight * norm_b) * direction


def slerp_latents(a: Float[Array, "B ..."], b: Float[Array, "B ..."], weight: Scalar) -> Float[Array, "B ..."]:
    """`slerp` of whole latents or pictures: one angle an example, over all its axes."""
    return slerp(a.reshape(len(a), -1), b.reshape(len(b), -1), weight).reshape(a.shape)


def text_diff(
    text_from: Float[Array, "... D"],
    text_to: Float[Array, "... D"],
    image_embedding: Float[Array, "... D"],
    strength: Scalar,
) -> Float[Array, "... D"]:
    """The image embedding turned towards the normalised difference of two text embeddings [Ramesh22, sec. 3.3].

    `strength` is the share of the angle between the two: 0 is the image, 1 the difference alone, and the paper ends at
    0.25 to 0.5. Text embeddings count by their direction, and the image embedding keeps its norm. Two equal texts
    leave it as it is.
    """
    difference = normalise(normalise(text_to) - normalise(text_from))
    norm = jnp.linalg.norm(image_embedding, axis=-1, keepdims=True)
    differ = jnp.any(difference != 0, axis=-1, keepdims=True)
    return slerp(image_embedding, jnp.where(differ, norm * difference, image_embedding), strength)


def _orthogonal(unit: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """A unit vector at right angles to each."""
    least = jnp.argmin(jnp.abs(unit), axis=-1)
    axis = jax.nn.one_hot(least, unit.shape[-1], dtype=unit.dtype)
    return normalise(axis - jnp.sum(axis * unit, axis=-1, keepdims=True) * unit)
