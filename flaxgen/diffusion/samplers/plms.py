"""Pseudo linear multistep: Adams-Bashforth on the predicted noise, in steps of DDIM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.diffusion.samplers.heun import SIGMA_MAX
from flaxgen.types import Denoiser, PRNGKey, Sampler, Schedule, Time

ADAMS_BASHFORTH = (
    (1, 0, 0, 0),
    (3 / 2, -1 / 2, 0, 0),
    (23 / 12, -16 / 12, 5 / 12, 0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""The weights of the noise predicted now and in steps before, by how many of them there are."""


class PlmsState(NamedTuple):
    """A sample, what the last step took x0 to be, the noise predicted in the last three steps, newest first, and how
    many steps there were."""

    x: Float[Array, "B ..."]
    x0: Float[Array, "B ..."]
    eps: Float[Array, "3 B ..."]
    count: Int[Array, ""]


def _init(x_T: Float[Array, "B ..."]) -> PlmsState:
    return PlmsState(x_T, jnp.zeros_like(x_T), jnp.zeros((3, *x_T.shape), x_T.dtype), jnp.int32(0))


def plms(schedule: Schedule) -> Sampler:
    """PNDM with a first step of second order instead of Runge-Kutta, as Stable Diffusion samples [Liu22b, eq. 12;
    Rombach22]: one call of the net a step, and two in the first.

    From beyond `heun.SIGMA_MAX` a step is DDIM's. The weights are those of steps of equal length, whatever the grid,
    and the order is two.
    """

    def step(denoise: Denoiser, state: PlmsState, t: Time, s: Time, key: PRNGKey) -> PlmsState:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x0 = denoise(state.x, t).x0
        eps = (state.x - alpha_t * x0) / sigma_t
        plain = alpha_s * x0 + sigma_s * eps
        has_slopes = sigma_t < SIGMA_MAX * alpha_t
        noise_to_signal = jnp.where(has_slopes, sigma_t / jnp.where(has_slopes, alpha_t, 1.0), 0.0)
        run = jnp.where(has_slopes, sigma_s - alpha_s * noise_to_signal, 0.0)

        def first(_):
            safe_sigma = jnp.where(sigma_s > 0, sigma_s, 1.0)
            ahead = (plain - alpha_s * denoise(plain, s).x0) / safe_sigma
            return jnp.where(sigma_s > 0, (ahead - eps) / 2, 0.0)

        def later(_):
            weights = jnp.asarray(ADAMS_BASHFORTH, x0.dtype)[jnp.minimum(state.count, 3)]
            return (weights[0] - 1) * eps + jnp.tensordot(weights[1:], state.eps, 1)

        change = jax.lax.cond(state.count == 0, first, later, None)
        noises = jnp.concatenate([eps[None], state.eps[:-1]])
        return PlmsState(plain + run * change, x0 - noise_to_signal * change, noises, state.count + 1)

    return Sampler(_init, step)
