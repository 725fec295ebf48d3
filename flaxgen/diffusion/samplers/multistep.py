"""Multistep solvers: the x0 of earlier steps make the next one more accurate, at no further call of the net.

With lambda = log(alpha / sigma), x_s = sigma_s / sigma_t x_t + sigma_s int_t^s e^lambda x0 dlambda is exact; the
solvers put a polynomial in lambda through their predictions of x0. Lambda is -inf at alpha = 0, inf at sigma = 0.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.types import AlphaSigma, Denoiser, PRNGKey, Sampler, Schedule, Time

Scalar = Float[Array, ""]


class DpmState(NamedTuple):
    """A sample, the last x0 and the lambda of its prediction, -inf where there is none."""

    x: Float[Array, "B ..."]
    x0: Float[Array, "B ..."]
    lambda_: Scalar


def _init_dpm(x_T: Float[Array, "B ..."]) -> DpmState:
    return DpmState(x_T, jnp.zeros_like(x_T), jnp.float32(-jnp.inf))


def dpmpp_2m(schedule: Schedule) -> Sampler:
    """DPM-Solver++(2M), second order [Lu22, alg. 2]; the first step and one to sigma = 0 are first order."""

    def step(denoise: Denoiser, state: DpmState, t: Time, s: Time, key: PRNGKey) -> DpmState:
        at_t, at_s = schedule(t), schedule(s)
        x0 = denoise(state.x, t).x0
        ahead = x0 + extrapolation(state.lambda_, lambda_of(at_t), lambda_of(at_s)) * (x0 - state.x0)
        x = at_s.sigma / at_t.sigma * state.x + at_s.alpha * (1 - noise_ratio(at_t, at_s)) * ahead
        return DpmState(x, x0, lambda_of(at_t))

    return Sampler(_init_dpm, step)


def dpmpp_2m_sde(schedule: Schedule) -> Sampler:
    """SDE-DPM-Solver++(2M) by the midpoint rule [Lu22]; its orders fall as those of `dpmpp_2m` do."""

    def step(denoise: Denoiser, state: DpmState, t: Time, s: Time, key: PRNGKey) -> DpmState:
        at_t, at_s = schedule(t), schedule(s)
        x0 = denoise(state.x, t).x0
        ahead = x0 + extrapolation(state.lambda_, lambda_of(at_t), lambda_of(at_s)) * (x0 - state.x0)
        ratio = noise_ratio(at_t, at_s)
        fresh = (1 - ratio) * (1 + ratio)
        mean = at_s.sigma / at_t.sigma * ratio * state.x + at_s.alpha * fresh * ahead
        noise = jax.random.normal(key, x0.shape, x0.dtype)
        return DpmState(mean + at_s.sigma * jnp.sqrt(fresh) * noise, x0, lambda_of(at_t))

    return Sampler(_init_dpm, step)


class LongState(NamedTuple):
    """A sample, the last x0 and the one before, and the lambdas of their predictions, -inf where there is none."""

    x: Float[Array, "B ..."]
    x0: Float[Array, "B ..."]
    older_x0: Float[Array, "B ..."]
    lambda_: Scalar
    older_lambda: Scalar


def _init_long(x_T: Float[Array, "B ..."]) -> LongState:
    return LongState(x_T, *[jnp.zeros_like(x_T)] * 2, *[jnp.float32(-jnp.inf)] * 2)


def dpmpp_3m(schedule: Schedule) -> Sampler:
    """DPM-Solver++(3M) [Lu22, sec. 4]: `dpmpp_2m` with the curvature of x0 in lambda; the first two steps are of orders
    one and two, one to sigma = 0 is first order.

    As in the authors' public code, which all others follow, the curvature counts half of what the parabola through the
    three predictions has. So the order is two, with a smaller error than that of `dpmpp_2m`.
    """

    def step(denoise: Denoiser, state: LongState, t: Time, s: Time, key: PRNGKey) -> LongState:
        at_t, at_s = schedule(t), schedule(s)
        x0 = denoise(state.x, t).x0
        second_order = extrapolation(state.lambda_, lambda_of(at_t), lambda_of(at_s)) * (x0 - state.x0)
        ahead = x0 + jnp.where(_has_curvature(state, at_s), _third_order(state, at_t, at_s, x0), second_order)
        x = at_s.sigma / at_t.sigma * state.x + at_s.alpha * (1 - noise_ratio(at_t, at_s)) * ahead
        return LongState(x, x0, state.x0, lambda_of(at_t), state.lambda_)

    return Sampler(_init_long, step)


def _has_curvature(state: LongState, at_s: AlphaSigma) -> Array:
    return jnp.isfinite(state.older_lambda) & jnp.isfinite(lambda_of(at_s))


def _third_order(state: LongState, at_t: AlphaSigma, at_s: AlphaSigma, x0: Array) -> Array:
    """What the mean of x0 over the step is beyond that at its start; the step is the unit of lambda."""
    lambdas = [lambda_of(at_s), lambda_of(at_t), state.lambda_, state.older_lambda]
    h, last, older = (jnp.where(_has_curvature(state, at_s), a - b, 1.0) for a, b in itertools.pairwise(lambdas))
    last, older = last / h, older / h
    slope, older_slope = (x0 - state.x0) / last, (state.x0 - state.older_x0) / older
    curvature = (slope - older_slope) / (last + older)
    first, second = _moments(h)
    return first * (slope + last * curvature) + second / 2 * curvature


def unipc(schedule: Schedule) -> Sampler:
    """UniPC-2 with B(h) = e^h - 1 [Zhao23, alg. 1-2]: steps as `dpmpp_2m` does, and corrects x once its x0 is known.

    The sample of its state is yet to be corrected. The correction is written as an increment, so that an x that was
    edited between two steps stays edited.
    """

    def correction(state: LongState, at_t: AlphaSigma, x0):
        h = lambda_of(at_t) - state.lambda_
        exists = jnp.isfinite(h)
        h = jnp.where(exists, h, 1.0)
        weight = extrapolation(state.older_lambda, state.lambda_, lambda_of(at_t))
        first, second = _moments(h)
        rho_older = (first - second) * 2 * weight / (2 * weight + 1)
        rho = jnp.where(weight > 0, first - rho_older, 0.5)
        change = (2 * rho_older - 1) * weight * (state.x0 - state.older_x0) + rho * (x0 - state.x0)
        return jnp.where(exists, -at_t.alpha * jnp.expm1(-h), 0.0) * change

    def step(denoise: Denoiser, state: LongState, t: Time, s: Time, key: PRNGKey) -> LongState:
        at_t, at_s = schedule(t), schedule(s)
        x0 = denoise(state.x, t).x0
        x = state.x + correction(state, at_t, x0)
        ahead = x0 + extrapolation(state.lambda_, lambda_of(at_t), lambda_of(at_s)) * (x0 - state.x0)
        x = at_s.sigma / at_t.sigma * x + at_s.alpha * (1 - noise_ratio(at_t, at_s)) * ahead
        return LongState(x, x0, state.x0, lambda_of(at_t), state.lambda_)

    return Sampler(_init_long, step)


def lambda_of(at: AlphaSigma) -> Scalar:
    """Log(alpha / sigma), half the log SNR."""
    return jnp.log(at.alpha) - jnp.log(at.sigma)


def noise_ratio(at_t: AlphaSigma, at_s: AlphaSigma) -> Scalar:
    """e^-h, with h the step in lambda: by how much sigma / alpha shrinks from t to s, in [0, 1]."""
    return jnp.minimum((at_t.alpha * at_s.sigma) / (at_s.alpha * at_t.sigma), 1.0)


def extrapolation(lambda_p: Scalar, lambda_t: Scalar, lambda_s: Scalar) -> Scalar:
    """h / (2 h_p): half the step to s in units of the last step; 0 where either is infinite."""
    step, last_step = lambda_s - lambda_t, lambda_t - lambda_p
    is_finite = jnp.isfinite(step) & jnp.isfinite(last_step)
    return jnp.where(is_finite, step / (2 * jnp.where(is_finite, last_step, 1.0)), 0.0)


def _moments(h: Scalar) -> tuple[Scalar, Scalar]:
    """The means of u and u^2 over a step, u from 0 to 1 in lambda and weighted by e^lambda: the b_1 and b_2 of UniPC.

    Below h = 0.3 by their series, as the closed forms cancel.
    """
    z, near = -h, jnp.abs(h) < 0.3
    safe = jnp.where(near, -1.0, z)
    first = jnp.where(near, 1 / 2 - z / 12 + z**3 / 720, 1 / safe - 1 / jnp.expm1(safe))
    second = jnp.where(near, 1 / 3 - z / 12 + z**2 / 360 + z**3 / 720, 2 * first / safe - 1 / jnp.expm1(safe))
    return first, second
