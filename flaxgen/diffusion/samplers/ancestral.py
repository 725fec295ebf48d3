"""Ancestral sampling, the reverse process of DDPM."""

import jax
import jax.numpy as jnp

from flaxgen.diffusion.posterior import LOG_VARIANCES, log_variance, posterior
from flaxgen.diffusion.samplers.ddim import DdimState, init
from flaxgen.types import Denoiser, PRNGKey, Sampler, Schedule, Time


def ancestral(schedule: Schedule, variance: str = "small") -> Sampler:
    """Draws from q(x_s | x_t, x0) at the predicted x0 [Ho20, alg. 2], with fixed small or large variance, or the one
    the net learned [Nichol21, eq. 15]; for any pair (t, s). The step to 0 adds no noise.

    Raises:
        ValueError: if the variance is unknown.
    """
    if variance not in LOG_VARIANCES:
        raise ValueError(f"variance={variance!r} is not one of {', '.join(LOG_VARIANCES)}")

    def step(denoise: Denoiser, state: DdimState, t: Time, s: Time, key: PRNGKey) -> DdimState:
        post = posterior(schedule, t, s)
        x0, var_mix = denoise(state.x, t)
        std = jnp.where(jnp.asarray(s) > 0, jnp.exp(log_variance(post, variance, var_mix) / 2), 0.0)
        return DdimState(post.mean(state.x, x0) + std * jax.random.normal(key, x0.shape, x0.dtype), x0)

    return Sampler(init, step)
