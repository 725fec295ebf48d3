"""Sampling from a consistency model: x0 at once, then noise again, a little less each time."""

import jax
import jax.numpy as jnp

from flaxgen.diffusion.samplers.ddim import DdimState, init
from flaxgen.types import Denoiser, PRNGKey, Sampler, Schedule, Time

TABLE, SCALE, DATA_STD = 1000, 10.0, 0.5
"""The entries of the table, the scale of its times and the deviation of data with which published models were
distilled."""


def lcm(schedule: Schedule) -> Sampler:
    """Multistep consistency sampling: what the net says of x_t, and fresh noise on it [Luo23, alg. 3]. As in the net's
    training, near the table's first time more of x_t itself is kept [Luo23, eq. 9]."""

    def step(denoise: Denoiser, state: DdimState, t: Time, s: Time, key: PRNGKey) -> DdimState:
        alpha, sigma = schedule(s)
        time = SCALE * jnp.maximum(jnp.asarray(t) * TABLE - 1, 0.0)
        spread = time**2 + DATA_STD**2
        x0 = time / jnp.sqrt(spread) * denoise(state.x, t).x0 + DATA_STD**2 / spread * state.x
        return DdimState(alpha * x0 + sigma * jax.random.normal(key, x0.shape, x0.dtype), x0)

    return Sampler(init, step)
