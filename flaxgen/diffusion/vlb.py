"""The variational bound on the negative log-likelihood, term by term, in bits a dimension [Ho20, eq. 5; Nichol21]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from flaxgen.diffusion.posterior import log_variance, posterior
from flaxgen.types import Denoised, Denoiser, PRNGKey, Schedule, Time

LEVELS = 256
FAR = 1e3
"""Standard deviations beyond which the likelihood of a pixel stops falling, to stay within float32."""


def gaussian_kl(
    difference: Float[Array, "*B"], log_variance_q: Float[Array, "*#B"], log_variance_p: Float[Array, "*#B"]
) -> Float[Array, "*B"]:
    """KL(q || p) in nats of two Gaussians whose means are `difference` apart."""
    log_ratio = log_variance_q - log_variance_p
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + difference**2 * jnp.exp(-log_variance_p))


def discretized_log_likelihood(
    x0: Float[Array, "*B"], mean: Float[Array, "*B"], log_std: Float[Array, "*#B"], levels: int = LEVELS
) -> Float[Array, "*B"]:
    """log P of 8-bit values in [-1, 1] under a Gaussian integrated over each value's bin [Ho20, eq. 13], in nats.

    The first and last bin reach to infinity. Computed from the side of the nearer tail, so that far values keep their
    digits and their gradient. Of other values than those of 8 bits `levels` says on how many even steps they are.
    """
    half, scale = 1 / (levels - 1), jnp.exp(-log_std)
    upper = jnp.where(x0 > 1 - half, jnp.inf, (x0 - mean + half) * scale)
    lower = jnp.where(x0 < half - 1, -jnp.inf, (x0 - mean - half) * scale)
    flip = (x0 - mean) > 0
    ends = jnp.stack([jnp.where(flip, -upper, lower), jnp.where(flip, -lower, upper)])
    log_a, log_b = log_ndtr(jnp.clip(ends, -FAR, FAR))
    return log_b + jnp.log(-jnp.expm1(-jnp.maximum(log_b - log_a, 1e-30)))  # log(ndtr(b) - ndtr(a))


def bound_term(
    denoised: Denoised,
    x0: Float[Array, " B *D"],
    x: Float[Array, " B *D"],
    times: tuple[Time, Time],
    schedule: Schedule,
    variance: str,
) -> Float[Array, " B"]:
    """The term of the step `times` = (t, s) of each example, in bits a dimension: KL(q(x_s | x, x0) || p(x_s | x)), or
    at s = 0 the -log p(x0 | x) of 8-bit values in [-1, 1]. Its expectation needs x ~ q(x_t | x0).

    Raises:
        ValueError: if `variance` is unknown, or is `learned` and the denoiser does not predict one.
    """
    t, s = times
    post = posterior(schedule, t, s)
    log_var = log_variance(post, variance, denoised.var_mix)
    kl = gaussian_kl(post.from_x0 * (x0 - denoised.x0), post.log_small, log_var)
    nll = -discretized_log_likelihood(x0, post.mean(x, denoised.x0), 0.5 * log_var)
    return bits(jnp.where(jnp.asarray(s) == 0, nll, kl))


def prior_term(x0: Float[Array, " B *D"], schedule: Schedule) -> Float[Array, " B"]:
    """KL(q(x_T | x0) || p(x_T)) of each example, in bits a dimension. The prior is N(0, alpha_T^2 + sigma_T^2): what
    becomes of data of variance 1, so N(0, 1) for every variance-preserving schedule."""
    alpha, sigma = schedule(1.0)
    total = alpha**2 + sigma**2
    return bits(gaussian_kl(alpha * x0, jnp.log(sigma**2), jnp.log(total)))


def bits(nats: Float[Array, " B *D"]) -> Float[Array, " B"]:
    """The mean over all axes but the first, in bits."""
    return jnp.mean(nats, axis=range(1, nats.ndim)) / np.log(2)


class BitsPerDim(NamedTuple):
    """The bound of each example and its terms, in bits a dimension; entry k - 1 of the lists is the step from k / T."""

    total: Float[Array, " B"]
    prior: Float[Array, " B"]
    terms: Float[Array, "T B"]
    mse: Float[Array, "T B"]
    """Mean squared error of x0."""


def bits_per_dim(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, " B *D"],
    timesteps: int,
    variance: str,
    key: PRNGKey,
) -> BitsPerDim:
    """Upper bound on -log2 p(x0) a dimension, of 8-bit values in [-1, 1], with `timesteps` equal steps [Ho20, eq. 5].

    One draw of noise a step, so one evaluation of the denoiser a step; unbiased.

    Raises:
        ValueError: if timesteps is below 1, or the variance does not fit the denoiser (see `bound_term`).
    """
    check_timesteps(timesteps)

    def term(k):
        noise_key = jax.random.fold_in(key, k)
        t, s = k / timesteps, (k - 1) / timesteps
        alpha, sigma = schedule(t)
        x = alpha * x0 + sigma * jax.random.normal(noise_key, x0.shape)
        denoised = denoise(x, t)
        mse = jnp.mean((denoised.x0 - x0) ** 2, axis=range(1, x0.ndim))
        return bound_term(denoised, x0, x, (t, s), schedule, variance), mse

    terms, mse = jax.lax.map(term, jnp.arange(1, timesteps + 1))
    prior = prior_term(x0, schedule)
    return BitsPerDim(prior + jnp.sum(terms, axis=0), prior, terms, mse)


def check_timesteps(timesteps: int) -> None:
    """Raises ValueError unless there is a first step: the bound is one of discrete steps, also in continuous time."""
    if timesteps < 1:
        raise ValueError(f"timesteps={timesteps} must be at least 1 for the variational bound")
