"""Solvers of the ODE in x / alpha over sigma / alpha, and the noise that EDM stirs in between."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flaxgen.diffusion.samplers.ddim import DdimState, ddim, init
from flaxgen.diffusion.schedules import time_of
from flaxgen.types import Denoiser, PRNGKey, Sampler, Scalar, Schedule, Time

SIGMA_MAX = 500.0
"""The sigma / alpha above which Heun's correction, which grows with it, does more harm than good: the first step of a
cosine table or a zero-terminal-SNR schedule; the linear table ends at 157. Other libraries correct there too, so a
step from beyond is not theirs."""


class Churn(NamedTuple):
    """Noise added before each step [Karras22, alg. 2].

    `rate` is the share by which sigma grows: S_churn / steps, of which sqrt(2) - 1 is used at most. `low` and `high`
    bound the sigma / alpha at which that is done; `scale` multiplies the noise (S_noise).
    """

    rate: Scalar
    low: Scalar = 0.0
    high: Scalar = float("inf")
    scale: Scalar = 1.0


def euler(schedule: Schedule, churn: Churn | None = None) -> Sampler:
    """Euler in x / alpha over sigma / alpha: without churn that is `ddim` with eta 0."""
    return churned(ddim(schedule), schedule, churn)


def heun(schedule: Schedule, churn: Churn | None = None) -> Sampler:
    """Heun in x / alpha over sigma / alpha, second order, two calls of the net a step [Karras22, alg. 2].

    A step to sigma = 0 is Euler's and calls it once; so is one from beyond SIGMA_MAX, as where alpha = 0. At a large
    sigma / alpha large steps are inaccurate: take the `karras` grid.
    """
    first_order = ddim(schedule)

    def step(denoise: Denoiser, state: DdimState, t: Time, s: Time, key: PRNGKey) -> DdimState:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        ahead = first_order.step(denoise, state, t, s, key)
        has_slopes = (sigma_s > 0) & (sigma_t < SIGMA_MAX * alpha_t)
        safe_alpha, safe_sigma = jnp.where(has_slopes, alpha_t, 1.0), jnp.where(has_slopes, sigma_s, 1.0)

        def correct(_):
            eps_t = (state.x - alpha_t * ahead.x0) / sigma_t
            eps_s = (ahead.x - alpha_s * denoise(ahead.x, s).x0) / safe_sigma
            run = sigma_s - alpha_s * sigma_t / safe_alpha
            return ahead.x + run * (eps_s - eps_t) / 2

        return DdimState(jax.lax.cond(has_slopes, correct, lambda _: ahead.x, None), ahead.x0)

    return churned(Sampler(init, step), schedule, churn)


def churned(sampler: Sampler, schedule: Schedule, churn: Churn | None) -> Sampler:
    """Goes back to a noisier time before each step of `sampler`, at t=1 at most; None leaves it as it is."""
    if churn is None:
        return sampler

    def step(denoise: Denoiser, state, t: Time, s: Time, key: PRNGKey):
        noise_key, step_key = jax.random.split(key)
        alpha, sigma = schedule(t)
        stirred = (alpha > 0) & (churn.low * alpha <= sigma) & (sigma <= churn.high * alpha)
        safe_alpha = jnp.where(stirred, alpha, 1.0)
        growth = 1 + jnp.minimum(churn.rate, 2**0.5 - 1)
        t_hat = jnp.where(stirred, time_of(schedule, growth * sigma / safe_alpha), t)
        alpha_hat, sigma_hat = schedule(t_hat)
        kept = jnp.where(stirred, alpha_hat / safe_alpha, 1.0)
        std = churn.scale * jnp.sqrt(jnp.maximum((sigma_hat - kept * sigma) * (sigma_hat + kept * sigma), 0.0))
        x_hat = kept * state.x + std * jax.random.normal(noise_key, state.x.shape, state.x.dtype)
        return sampler.step(denoise, state._replace(x=x_hat), t_hat, s, step_key)

    return Sampler(sampler.init, step)
