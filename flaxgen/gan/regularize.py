"""Penalties on the gradients of a net that is handed in as a function, and Adam for those applied every few steps.

Each is a mean over examples without its weight: the caller multiplies by that, and by the interval where it is lazy.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flaxgen.types import Keys, Scalar

Critic = Callable[[Float[Array, "B ..."]], Float[Array, " B"]]
"""A discriminator that knows its parameters and labels already: examples to logits."""
Synthesize = Callable[[Float[Array, "B L D"]], Float[Array, "B H W C"]]
"""A generator's second half: a style a layer to images."""


def r1(critic: Critic, images: Float[Array, "B ..."]) -> Float[Array, ""]:
    """Mean over examples of |grad critic(x)|^2 at real ones [Mescheder18, eq. 9]; at generated ones it is R2.

    No factor is in it: what is added to the loss is gamma / 2 times this, times the interval where it is lazy.
    """
    return jnp.mean(_square_sum(input_gradients(critic, images)))


def gradient_penalty(
    critic: Critic, real: Float[Array, "B ..."], fake: Float[Array, "B ..."], keys: Keys
) -> Float[Array, ""]:
    """Mean of (|grad critic(x)| - 1)^2 at points drawn on the lines between pairs [Gulrajani17, eq. 3]; its weight is
    10 there."""
    share = jax.vmap(jax.random.uniform)(keys)
    share = share.reshape(-1, *(1,) * (real.ndim - 1))
    gradients = input_gradients(critic, share * real + (1 - share) * fake)
    return jnp.mean((_safe_sqrt(_square_sum(gradients)) - 1) ** 2)


def path_lengths(synthesize: Synthesize, w: Float[Array, "B L D"], keys: Keys) -> Float[Array, " B"]:
    """|J^T y| of images after styles, y ~ N(0, I / (H W)), as root of the mean over layers [Karras20, sec. 3.2]."""
    images, pull = jax.vjp(synthesize, w)
    _, height, width, _ = images.shape
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    (gradients,) = pull(noise / jnp.sqrt(height * width).astype(images.dtype))
    return _safe_sqrt(jnp.mean(jnp.sum(gradients**2, axis=2), axis=1))


def path_length_mean(mean: Scalar, batch_mean: Scalar, decay: Scalar = 0.01) -> Float[Array, ""]:
    """The moving mean that lengths are drawn to, after a batch (of all devices) of that mean [Karras20, sec. 3.2].

    NVlabs' code penalises against the mean after the batch, and lets the gradient through it.
    """
    return jnp.asarray(mean + decay * (batch_mean - mean))


def path_length_penalty(lengths: Float[Array, " B"], mean: Scalar) -> Float[Array, ""]:
    """Mean of (length - mean)^2 [Karras20, eq. 4]; its weight is 2 there."""
    return jnp.mean((lengths - mean) ** 2)


def lazy_adam(
    learning_rate: Scalar | optax.Schedule, b1: Scalar, b2: Scalar, interval: int | None, epsilon: Scalar = 1e-8
) -> optax.GradientTransformation:
    """Adam for a net whose penalty takes a step of its own every `interval` steps: with c = k / (k + 1), rate c lr and
    decays b1^c, b2^c keep k + 1 steps worth what k were [Karras20, app. B]. None is plain Adam.

    Raises:
        ValueError: if interval is below 1.
    """
    if interval is not None and interval < 1:
        raise ValueError(f"interval={interval}: expected 1 or more steps, or None for no lazy penalty")
    c = 1.0 if interval is None else interval / (interval + 1)
    rate = (lambda step: c * learning_rate(step)) if callable(learning_rate) else c * learning_rate
    return optax.adam(rate, b1**c, b2**c, eps=epsilon)


def input_gradients(critic: Critic, x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """Of each logit after its own example; where the critic looks at the batch, of all logits' sum."""
    return jax.grad(lambda x: jnp.sum(critic(x)))(x)


def _square_sum(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    return jnp.sum(x.reshape(x.shape[0], -1) ** 2, axis=1)


def _safe_sqrt(x: Float[Array, " B"]) -> Float[Array, " B"]:
    """The root, with a gradient of 0 instead of infinity at 0, where a net of zeros starts."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
