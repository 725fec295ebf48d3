"""Noise schedules: t in [0, 1] -> (alpha, sigma) of x_t = alpha x0 + sigma eps, clean at t=0.

Constructors take `timesteps`: a table of that many steps, in which t = k / timesteps reads entry k - 1, or the
continuous form for 0. Alpha and sigma are computed apart, so that both keep their digits at both ends.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from flaxgen.types import AlphaSigma, Scalar, Schedule, Time

ALPHA_BAR_MIN = float(np.exp(-15.0))
"""Where the continuous cosine and sigmoid schedules end: log SNR -15 as in [Hoogeboom23], so that eps can be
predicted at t=1. `zero_terminal_snr` takes them to 0."""
MAX_BETA = 0.999


def table(alpha_bar: ArrayLike) -> Schedule:
    """The variance-preserving schedule with alpha^2 = alpha_bar[k - 1] at t = k / T, linear in (alpha, sigma) between.

    Raises:
        ValueError: unless alpha_bar falls within [0, 1].
    """
    alpha_bar = np.asarray(alpha_bar, np.float64)
    if alpha_bar.ndim != 1 or alpha_bar.size == 0 or (np.diff([1.0, *alpha_bar, 0.0]) > 0).any():
        raise ValueError(f"alpha_bar must be a list that falls within [0, 1], got {alpha_bar}")
    return _interpolate(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))


def from_betas(betas: ArrayLike) -> Schedule:
    """The table of alpha_bar = cumprod(1 - beta) [Ho20, sec. 2].

    Raises:
        ValueError: unless every beta is in [0, 1].
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or betas.size == 0 or betas.min() < 0 or betas.max() > 1:
        raise ValueError(f"betas must be a list of numbers in [0, 1], got {betas}")
    return table(np.cumprod(1 - betas))


def discretize(schedule: Schedule, timesteps: int) -> Schedule:
    """The table with the values of `schedule` at t = k / timesteps; for timesteps=0 the schedule itself.

    Raises:
        ValueError: if timesteps is negative.
    """
    if timesteps < 0:
        raise ValueError(f"timesteps={timesteps} must be a number of steps, or 0 for continuous time")
    return _interpolate(*_knots(schedule, timesteps)) if timesteps else schedule


def linear(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Beta linear in t [Ho20, sec. 4]; the continuous form is the VP SDE [Song21b, eq. 33].

    The betas are those of 1000 steps; for another number they are scaled by 1000 / timesteps, as in [Nichol21], so
    that alpha at t hardly depends on it.

    Raises:
        ValueError: if timesteps is so small that a scaled beta would reach 1.
    """
    if timesteps == 0:
        return _vp(lambda t: 1000 * (beta_start * t + (beta_end - beta_start) * t**2 / 2))
    return from_betas(_scaled(np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)))


def scaled_linear(timesteps: int, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """Sqrt(beta) linear in t [Rombach22]; scaled as in `linear`.

    Raises:
        ValueError: if timesteps is so small that a scaled beta would reach 1.
    """
    low, high = beta_start**0.5, beta_end**0.5
    if timesteps == 0:
        return _vp(lambda t: 1000 * (low**2 * t + low * (high - low) * t**2 + (high - low) ** 2 * t**3 / 3))
    return from_betas(_scaled(np.linspace(low, high, timesteps, dtype=np.float64) ** 2))


def cosine(timesteps: int, offset: float = 0.008) -> Schedule:
    """Alpha is a quarter of a cosine wave [Nichol21, eq. 17]; in the table beta is at most 0.999."""
    if timesteps > 0:
        angle = np.pi / 2 * (np.arange(timesteps + 1) / timesteps + offset) / (1 + offset)
        alpha_bar = np.cos(angle) ** 2
        return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], MAX_BETA))
    first = np.pi / 2 * offset / (1 + offset)

    def squares(t):
        run = np.pi / 2 / (1 + offset) * t
        rest = np.pi / 2 / (1 + offset) * (1 - t)
        return jnp.sin(rest) ** 2 / np.cos(first) ** 2, jnp.sin(run) * jnp.sin(run + 2 * first) / np.cos(first) ** 2

    return _above_minimum(squares)


def sigmoid(timesteps: int, start: float = -3.0, end: float = 3.0, temperature: float = 1.0) -> Schedule:
    """Alpha^2 falls as a sigmoid does from `start` to `end`, rescaled to run from 1 to 0 [Chen23, sec. 2.1]."""

    low, high = start / temperature, end / temperature
    span = high - low

    def squares(t):  # sigmoid(a) - sigmoid(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)) does not cancel
        scale = np.sinh(span / 2) * jnp.cosh((low + span * t) / 2)
        alpha_bar = jnp.sinh(span * (1 - t) / 2) * np.cosh(low / 2) / scale
        return alpha_bar, jnp.sinh(span * t / 2) * np.cosh(high / 2) / scale

    return discretize(_above_minimum(squares), timesteps)


def rectified_flow(timesteps: int) -> Schedule:
    """Alpha = 1 - t, sigma = t: straight paths [Liu22; Lipman23]."""

    def schedule(t: Time) -> AlphaSigma:
        t = jnp.asarray(t, jnp.float32)
        return AlphaSigma(1 - t, t)

    return discretize(schedule, timesteps)


def edm(timesteps: int, sigma_max: float = 80.0) -> Schedule:
    """Alpha = 1, sigma = sigma_max t: variance exploding, with the sigmas of [Karras22]."""

    def schedule(t: Time) -> AlphaSigma:
        t = jnp.asarray(t, jnp.float32)
        return AlphaSigma(jnp.ones_like(t), sigma_max * t)

    return discretize(schedule, timesteps)


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "rectified_flow": rectified_flow,
    "edm": edm,
}
VARIANCE_PRESERVING = ("linear", "scaled_linear", "cosine", "sigmoid")
"""Those with alpha^2 + sigma^2 = 1."""


def zero_terminal_snr(schedule: Schedule, timesteps: int = 0) -> Schedule:
    """Alpha of a variance-preserving schedule shifted and stretched to end at 0 [Lin23, alg. 1].

    Of a table of `timesteps` the first step keeps its value, as in the paper; for 0 it is t=0 that does.
    """
    with jax.ensure_compile_time_eval():
        alpha_1, alpha_first = schedule(1.0).alpha, schedule(1 / timesteps if timesteps else 0.0).alpha

    def rescaled(t: Time) -> AlphaSigma:
        alpha, sigma = schedule(t)
        lost, lost_first = sigma**2 / (1 + alpha), 1 - alpha_first
        alpha = (alpha - alpha_1) * alpha_first / (alpha_first - alpha_1)
        lost = jnp.maximum(alpha_first * lost - alpha_1 * lost_first, 0) / (alpha_first - alpha_1)
        return AlphaSigma(alpha, jnp.sqrt(lost * (1 + alpha)))

    return discretize(rescaled, timesteps)


def shift(schedule: Schedule, factor: Scalar, timesteps: int = 0) -> Schedule:
    """Sigma / alpha times `factor`, for another resolution [Hoogeboom23; Esser24, eq. 23].

    What the schedule keeps at 1 stays at 1: alpha^2 + sigma^2, alpha + sigma, or alpha. Of a table of `timesteps` that
    is read at one of its own times, between which it is kept roughly; for 0 at any.

    Raises:
        ValueError: if it keeps none of these.
    """
    middle = -(-timesteps // 2) / timesteps if timesteps else 0.5
    with jax.ensure_compile_time_eval():
        alpha, sigma = (float(x) for x in jax.jit(schedule)(middle))
    kept = {"square": alpha**2 + sigma**2, "sum": alpha + sigma, "alpha": alpha}
    norm = min(kept, key=lambda name: abs(kept[name] - 1))
    if abs(kept[norm] - 1) > 1e-4:
        raise ValueError(
            f"shift needs a schedule with alpha^2 + sigma^2, alpha + sigma or alpha at 1; at t={middle:g} {kept}"
        )

    def shifted(t: Time) -> AlphaSigma:
        alpha, sigma = schedule(t)
        sigma = factor * sigma
        scale = {"square": jnp.sqrt(alpha**2 + sigma**2), "sum": alpha + sigma, "alpha": jnp.ones_like(alpha)}[norm]
        return AlphaSigma(alpha / scale, sigma / scale)

    return shifted


def log_snr(schedule: Schedule, t: Time) -> Float[Array, ""]:
    """Log(alpha^2 / sigma^2); infinite at t=0."""
    alpha, sigma = schedule(t)
    return 2 * (jnp.log(alpha) - jnp.log(sigma))


def time_of(schedule: Schedule, noise_to_signal: Scalar) -> Float[Array, ""]:
    """The time at which sigma / alpha has the given value, by bisection; 1 if it never gets there."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        alpha, sigma = schedule(middle)
        noisier = sigma > noise_to_signal * alpha
        return jnp.where(noisier, low, middle), jnp.where(noisier, middle, high)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.float32(0.0), jnp.float32(1.0)))
    alpha, sigma = schedule(high)
    return jnp.where(sigma > noise_to_signal * alpha, low, high)


def _knots(schedule: Schedule, timesteps: int):
    with jax.ensure_compile_time_eval():
        return jax.vmap(schedule)(jnp.arange(1, timesteps + 1, dtype=jnp.float32) / timesteps)


def _interpolate(alphas: ArrayLike, sigmas: ArrayLike) -> Schedule:
    """Linear between (1, 0) at t=0 and the given values at t = 1/T, 2/T .. 1."""
    knots = np.stack([np.append(1, alphas), np.append(0, sigmas)]).astype(np.float32)
    timesteps = knots.shape[1] - 1

    def schedule(t: Time) -> AlphaSigma:
        place = jnp.asarray(t, jnp.float32) * timesteps
        below = jnp.clip(place.astype(jnp.int32), 0, timesteps - 1)
        low, high = jnp.asarray(knots)[:, below], jnp.asarray(knots)[:, below + 1]
        part = place - below
        alpha, sigma = (1 - part) * low + part * high
        return AlphaSigma(alpha, sigma)

    return schedule


def _scaled(betas):
    betas = betas * 1000 / len(betas)
    if betas.max() >= 1:
        raise ValueError(
            f"timesteps={len(betas)} would need a beta of {betas.max():.3g}, and it must be below 1: take more steps, "
            "or discretize the continuous schedule (timesteps=0)"
        )
    return betas


def _vp(integrated_beta) -> Schedule:
    def schedule(t: Time) -> AlphaSigma:
        total = integrated_beta(jnp.asarray(t, jnp.float32))
        return AlphaSigma(jnp.exp(-total / 2), jnp.sqrt(-jnp.expm1(-total)))

    return schedule


def _above_minimum(squares) -> Schedule:
    """Takes alpha^2 and sigma^2 that run from (1, 0) to (0, 1) to ones that end at ALPHA_BAR_MIN."""

    def schedule(t: Time) -> AlphaSigma:
        alpha_bar, variance = squares(jnp.asarray(t, jnp.float32))
        alpha_bar = jnp.where(variance < 0.5, 1 - variance, alpha_bar)
        alpha = jnp.sqrt(alpha_bar + ALPHA_BAR_MIN * variance)
        return AlphaSigma(alpha, jnp.sqrt((1 - ALPHA_BAR_MIN) * variance))

    return schedule
