"""Draws that happen with a probability, and nothing changes where they do not."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from flaxgen.types import PRNGKey, Scalar


class Drawn(NamedTuple):
    """A strength, and whether it was drawn rather than neutral."""

    value: Shaped[Array, "..."]
    drawn: Bool[Array, ""]


def maybe(
    key: PRNGKey,
    probability: Scalar,
    draw: Callable[[PRNGKey], Shaped[Array, "..."]],
    neutral: float | int,
) -> Drawn:
    """With that probability what `draw` makes of its key, else `neutral`; probabilities over 1 are 1."""
    whether_key, value_key = jax.random.split(key)
    drawn = jax.random.bernoulli(whether_key, probability)
    return Drawn(jnp.where(drawn, draw(value_key), neutral), drawn)


def uniform_sign(key: PRNGKey, most: float, shape: tuple[int, ...] = ()) -> Shaped[Array, "..."]:
    """Uniform in [-most, most)."""
    return jax.random.uniform(key, shape, minval=-most, maxval=most)


def log2_normal(key: PRNGKey, std: float) -> Shaped[Array, ""]:
    """2^n of a normal n of that standard deviation: a factor whose inverse is as likely."""
    return jnp.exp2(std * jax.random.normal(key))
