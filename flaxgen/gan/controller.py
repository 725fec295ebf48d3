"""How likely augmentation is, steered by how sure the discriminator is of the training set [Karras20b, sec. 3.1]."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.types import Scalar


class Controller(NamedTuple):
    """`probability` of each augmentation, never below 0; `signs` sums the mean signs of the `steps` since it moved."""

    probability: Float[Array, ""]
    signs: Float[Array, ""]
    steps: Int[Array, ""]


def init_controller(probability: Scalar = 0.0) -> Controller:
    """The state before training."""
    return Controller(jnp.asarray(probability, jnp.float32), jnp.zeros(()), jnp.zeros((), jnp.int32))


def update_controller(
    state: Controller,
    signs_mean: Float[Array, ""],
    *,
    batch_size: int,
    target: Scalar = 0.6,
    interval: int = 4,
    images: Scalar = 500_000,
) -> Controller:
    """The state after a step whose `signs_mean` in [-1, 1] is E[sign D(real)] over the global batch of `batch_size`.

    Every `interval` steps the probability moves towards where the mean of signs is `target`, by what takes it from 0
    to 1 over so many `images`. It has no upper limit but each augmentation's own, as in NVlabs' code. A step of which
    the mean is not finite is passed over.
    """
    usable = jnp.isfinite(signs_mean)
    signs = state.signs + jnp.where(usable, signs_mean, 0)
    steps = state.steps + usable
    due = steps >= interval
    move = jnp.sign(signs / jnp.maximum(steps, 1) - target) * (batch_size * interval / images)
    probability = jnp.where(due, jnp.maximum(state.probability + move, 0), state.probability)
    return Controller(probability, jnp.where(due, 0, signs), jnp.where(due, 0, steps))
