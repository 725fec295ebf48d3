"""DDIM, from the probability-flow ODE (eta 0) to ancestral sampling (eta 1), and its inversion."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import Denoiser, PRNGKey, Sampler, Scalar, Schedule, Time


class DdimState(NamedTuple):
    """A sample and what the last step took x0 to be; all that one-step solvers keep."""

    x: Float[Array, "B ..."]
    x0: Float[Array, "B ..."]


def init(x_T: Float[Array, "B ..."]) -> DdimState:
    """Nothing is predicted yet."""
    return DdimState(x_T, jnp.zeros_like(x_T))


def ddim(
    schedule: Schedule, eta: Scalar = 0.0, shape: Callable[[Denoiser], Denoiser] = lambda denoise: denoise
) -> Sampler:
    """Eta 0 is the ODE, first order; eta 1 is ancestral sampling with the small variance [Song21, eq. 12, 16].

    What clips or thresholds the denoiser changes the noise along with x0, so that both still make x_t:
    `use_clipped_model_output=True` of diffusers. Given as `shape` it changes x0 alone, and the noise stays what the net
    predicts: diffusers' default.
    """

    def step(denoise: Denoiser, state: DdimState, t: Time, s: Time, key: PRNGKey) -> DdimState:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        predicted = denoise(state.x, t)
        eps = (state.x - alpha_t * predicted.x0) / sigma_t
        x0 = shape(lambda x, t: predicted)(state.x, t).x0
        ratio = (alpha_t * sigma_s) / (alpha_s * sigma_t)
        fresh = jnp.clip(eta**2 * (1 - ratio) * (1 + ratio), 0, 1)
        noise = jnp.sqrt(1 - fresh) * eps + jnp.sqrt(fresh) * jax.random.normal(key, eps.shape, eps.dtype)
        return DdimState(alpha_s * x0 + sigma_s * noise, x0)

    return Sampler(init, step)


def euler_ancestral(schedule: Schedule) -> Sampler:
    """Euler to a lower sigma, then noise up to the next one: with x / alpha for x that is DDIM with eta 1."""
    return ddim(schedule, eta=1.0)


def ddim_inversion(schedule: Schedule, iterations: int = 1) -> Sampler:
    """DDIM run backwards, for increasing times from 0 up: what noise would have given this x [Song21, sec. 4.3].

    What a step takes x0 to be is what is predicted at its far end, found by fixed-point iterations that start from x;
    one is the usual approximation, more come close to the exact inverse of `ddim`. The noise is read from the guess
    where there is more signal than noise, and from x elsewhere: each where an error of the guess matters less.

    Raises:
        ValueError: if iterations is less than 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be 1 or more")

    def step(denoise: Denoiser, state: DdimState, t: Time, s: Time, key: PRNGKey) -> DdimState:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        noisy = sigma_t > alpha_t

        def improve(_, guess):
            x0 = denoise(guess.x, s).x0
            of_guess, of_x = (guess.x - alpha_s * x0) / sigma_s, (state.x - alpha_t * x0) / jnp.where(noisy, sigma_t, 1)
            eps = jnp.where(noisy, of_x, of_guess)
            signal = jnp.where(noisy, x0, (state.x - sigma_t * eps) / alpha_t)
            return DdimState(alpha_s * signal + sigma_s * eps, x0)

        return jax.lax.fori_loop(0, iterations, improve, state)

    return Sampler(init, step)
