"""How much training sees of every noise level: the times it draws, and the weights of the loss there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaxgen.diffusion.denoise import Prediction
from flaxgen.diffusion.schedules import time_of
from flaxgen.diffusion.times import shift_time
from flaxgen.types import PRNGKey, Scalar, Schedule, Time

SampleTime = Callable[[PRNGKey], Time]
Weight = Callable[[Prediction, Float[Array, ""], Float[Array, ""]], Float[Array, ""]]
"""(prediction, alpha, sigma) -> weight of the squared error of the net's output."""


def simple(prediction: Prediction, alpha: Float[Array, ""], sigma: Float[Array, ""]) -> Float[Array, ""]:
    """1 [Ho20, eq. 14]."""
    return jnp.ones_like(alpha)


def min_snr(gamma: Scalar = 5.0) -> Weight:
    """min(SNR, gamma) on the squared error of x0 [Hang23]."""

    def weight(prediction, alpha, sigma):
        alpha, sigma = _off_the_ends(alpha, sigma)
        return jnp.minimum((alpha / sigma) ** 2, gamma) / prediction.gain(alpha, sigma) ** 2

    return weight


def snr_plus_one(cap: Scalar = 20.0) -> Weight:
    """min(SNR + 1, cap) on the squared error of x0 [Salimans22, sec. 4]: that of v, but for the least noise, where a
    net that predicts x0 could never answer for it."""

    def weight(prediction, alpha, sigma):
        alpha, sigma = _off_the_ends(alpha, sigma)
        return jnp.minimum((alpha / sigma) ** 2 + 1, cap) / prediction.gain(alpha, sigma) ** 2

    return weight


def edm(sigma_data: float = 0.5) -> Weight:
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on the squared error of x0, sigma meaning sigma / alpha
    [Karras22, table 1]; it is 1 for EDM preconditioning."""

    def weight(prediction, alpha, sigma):
        alpha, sigma = _off_the_ends(alpha, sigma)
        on_x0 = (1 / sigma_data) ** 2 + (alpha / sigma) ** 2
        return on_x0 / prediction.gain(alpha, sigma) ** 2

    return weight


def _off_the_ends(alpha, sigma):
    """0 / 0 at t=0 and at t=1 without signal: the limit instead."""
    return jnp.maximum(alpha, 1e-6), jnp.maximum(sigma, 1e-6)


WEIGHTS: dict[str, Weight] = {"simple": simple, "min_snr": min_snr(), "snr_plus_one": snr_plus_one(), "edm": edm()}


def table_time(timesteps: int) -> SampleTime:
    """Uniform over 1/T, 2/T .. 1 [Ho20, alg. 1].

    Raises:
        ValueError: if timesteps is below 1.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps={timesteps} has no table to draw times from: draw them uniform, or take 1 or more")
    return lambda key: jax.random.randint(key, (), 1, timesteps + 1).astype(jnp.float32) / timesteps


def uniform_time(key: PRNGKey) -> Time:
    """Uniform over (0, 1]."""
    return 1 - jax.random.uniform(key)


def log_normal_time(schedule: Schedule, mean: Scalar = -1.2, std: Scalar = 1.2) -> SampleTime:
    """log(sigma / alpha) ~ N(mean, std^2) [Karras22, table 1]; beyond the schedule's noisiest, t=1."""
    return lambda key: time_of(schedule, jnp.exp(mean + std * jax.random.normal(key)))


def logit_normal_time(mean: Scalar = 0.0, std: Scalar = 1.0) -> SampleTime:
    """logit(t) ~ N(mean, std^2) [Esser24, eq. 19]."""
    return lambda key: jax.nn.sigmoid(mean + std * jax.random.normal(key))


def shifted(sample_time: SampleTime, factor: float) -> SampleTime:
    """Times of straight paths as they are seen at another resolution [Esser24, eq. 23]."""
    return lambda key: shift_time(sample_time(key), factor)


TIME_SAMPLING: dict[str, Callable[[Schedule, int], SampleTime]] = {
    "table": lambda schedule, timesteps: table_time(timesteps),
    "uniform": lambda schedule, timesteps: uniform_time,
    "log_normal": lambda schedule, timesteps: log_normal_time(schedule),
    "logit_normal": lambda schedule, timesteps: logit_normal_time(),
}
"""Makers of (schedule, timesteps)."""
