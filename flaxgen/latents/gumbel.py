"""Codes as relaxed draws of a softmax, through which gradients pass [Jang17; Maddison17; Ramesh21, sec. 2.1]."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import Keys, Scalar


def relax(logits: Float[Array, "B *space K"], keys: Keys, temperature: Scalar) -> Float[Array, "B *space K"]:
    """softmax((logits + Gumbel noise) / temperature): weights that become one draw as the temperature goes to 0."""
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    return jax.nn.softmax((logits.astype(jnp.float32) + noise) / temperature, axis=-1)


def kl_to_uniform(logits: Float[Array, "*B K"]) -> Float[Array, "*B"]:
    """KL(softmax(logits) || uniform) in nats, from 0 to log K. It is that of the plain logits, without temperature, as
    in the published training of DALL-E 1."""
    log_prob = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.sum(jnp.exp(log_prob) * log_prob, axis=-1) + math.log(logits.shape[-1])


def anneal(step: Scalar, start: float, end: float, steps: int) -> Float[Array, ""]:
    """From `start` to `end` along half a cosine in `steps` steps, then `end` [Ramesh21, app. A.2]."""
    done = jnp.clip(step / steps, 0.0, 1.0) if steps else jnp.ones(())
    return end + 0.5 * (start - end) * (1 + jnp.cos(jnp.pi * done))
