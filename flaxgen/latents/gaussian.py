"""Latents that are Gaussians: the variational autoencoder's terms and its bounds [Kingma14; Burda16]."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import Keys

LOG_VARIANCES = (-30.0, 20.0)
"""Log-variances are clipped to these, as in latent diffusion's code, so that none overflows."""


def split_moments(h: Float[Array, "B *space C"]) -> tuple[Float[Array, "B *space D"], Float[Array, "B *space D"]]:
    """Mean and log-variance, the two halves of the last axis; both float32, the latter clipped to LOG_VARIANCES."""
    mean, log_variance = jnp.split(h.astype(jnp.float32), 2, axis=-1)
    return mean, jnp.clip(log_variance, *LOG_VARIANCES)


def draw(mean: Float[Array, " B *D"], log_variance: Float[Array, " B *D"], keys: Keys) -> Float[Array, " B *D"]:
    """z = mean + std * noise, through which gradients pass [Kingma14, sec. 2.4]."""
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    return mean + jnp.exp(0.5 * log_variance) * noise


def kl_to_normal(mean: Float[Array, "*B"], log_variance: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """KL(N(mean, variance) || N(0, 1)) of each number, in nats [Kingma14, app. B]."""
    return 0.5 * (mean**2 + jnp.expm1(log_variance) - log_variance)


def free_bits(kl: Float[Array, "B *space D"], least: float) -> Float[Array, " B"]:
    """The KL of each example in nats, where every channel costs `least` nats at least, summed over space: below it, a
    channel is left alone [Kingma16, app. C.8, of each example instead of a batch, so that devices change nothing]."""
    channels = kl.reshape(kl.shape[0], -1, kl.shape[-1]).sum(1)
    return jnp.maximum(channels, least).sum(-1)


def log_weight(
    log_likelihood: Float[Array, " B"],
    z: Float[Array, " B *D"],
    mean: Float[Array, " B *D"],
    log_variance: Float[Array, " B *D"],
) -> Float[Array, " B"]:
    """log p(x | z) + log p(z) - log q(z | x) in nats, for a z drawn from q = N(mean, variance)."""
    # the two constants log 2 pi cancel
    difference = 0.5 * ((z - mean) ** 2 * jnp.exp(-log_variance) + log_variance - z**2)
    return log_likelihood + difference.reshape(len(z), -1).sum(-1)


def importance_bound(log_weights: Float[Array, "K B"]) -> Float[Array, " B"]:
    """log of the mean of K importance weights: a lower bound on log p(x) in nats, the ELBO for K = 1, which rises with
    K [Burda16, eq. 8]."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
