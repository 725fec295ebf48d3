"""How likely a picture is under what a decoder says of its pixels, in nats."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MARGIN = 0.1
"""What `to_unit` keeps from 0 and 1, where a logit is infinite [Ramesh21, app. A.3]."""


def logistic_log_prob(
    x: Float[Array, "*B"], mean: Float[Array, "*B"], log_scale: Float[Array, "*#B"], levels: int = 256
) -> Float[Array, "*B"]:
    """log P of values on `levels` even steps of [-1, 1] under a logistic integrated over each value's bin, of which the
    first and the last reach to infinity [Kingma16, eq. 12; Salimans17, eq. 2]."""
    half, scale = 1 / (levels - 1), jnp.exp(-log_scale)
    upper, lower = (x - mean + half) * scale, (x - mean - half) * scale
    # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - e^(l - u))
    between = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-2 * half * scale))
    open_ends = jnp.where(x > 1 - half, jax.nn.log_sigmoid(-lower), between)
    return jnp.where(x < half - 1, jax.nn.log_sigmoid(upper), open_ends)


def to_unit(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Pixels in [-1, 1] to [0.1, 0.9] [Ramesh21, app. A.3]."""
    return (1 - 2 * MARGIN) * (x + 1) / 2 + MARGIN


def from_unit(y: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The inverse of `to_unit`; what lies beyond [-1, 1] is clipped."""
    return jnp.clip(2 * (y - MARGIN) / (1 - 2 * MARGIN) - 1, -1, 1)


def logit_laplace_log_prob(
    x: Float[Array, "*B"], mean: Float[Array, "*B"], log_scale: Float[Array, "*#B"]
) -> Float[Array, "*B"]:
    """log f(x) of x in (0, 1) whose logit is Laplace around `mean`, a density [Ramesh21, eq. 2]."""
    logit = jnp.log(x) - jnp.log1p(-x)
    return -jnp.abs(logit - mean) * jnp.exp(-log_scale) - jnp.log(2 * x * (1 - x)) - log_scale
