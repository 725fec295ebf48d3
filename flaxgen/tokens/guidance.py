"""Classifier-free guidance of codes: logits with and without the condition, in one doubled batch [Ho22]."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.tokens.sampling import Predict, Step
from flaxgen.types import Scalar


def guide(both: Float[Array, "_ *S N"], scale: Scalar) -> Float[Array, "_ *S N"]:
    """null + scale (conditional - null); scale=1 is exactly the conditional.

    The first half of the batch read the condition, the second half the null condition in its place. This is for logits
    of codes: sums of a mixture's parameters (tokens/logistic.py) mean nothing.
    """
    conditional, null = jnp.split(both, 2)
    return conditional + (scale - 1) * (conditional - null)


def guided_start(start: tuple[Float[Array, "_ N"], Any], scale: Scalar) -> tuple[Float[Array, "_ N"], Any]:
    """What a net's prefix gave of the doubled batch, with logits for the single one."""
    both, caches = start
    return guide(both, scale), caches


def guided_step(step: Step, scale: Scalar) -> Step:
    """A step of the doubled batch as one of the single batch: both halves read what was drawn."""

    def guided(code, place, caches):
        both, caches = step(jnp.concatenate((code, code)), place, caches)
        return guide(both, scale), caches

    return guided


def guided_predict(predict: Predict, scale: Scalar) -> Predict:
    """The same for nets that read all codes at once."""
    return lambda codes: guide(predict(jnp.concatenate((codes, codes))), scale)
