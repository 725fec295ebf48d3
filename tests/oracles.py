"""Closed forms: what a perfect net would predict, and where the equations then lead."""

import jax.numpy as jnp

from flaxgen.types import Denoised, Denoiser, Schedule


def gaussian_marginal(schedule: Schedule, t, mean: float, std: float):
    """Mean and standard deviation of x_t for x0 ~ N(mean, std^2)."""
    alpha, sigma = schedule(t)
    return alpha * mean, jnp.sqrt((alpha * std) ** 2 + sigma**2)


def gaussian_denoiser(schedule: Schedule, mean: float, std: float) -> Denoiser:
    """E[x0 | x_t] for x0 ~ N(mean, std^2)."""

    def denoise(x, t):
        alpha, sigma = schedule(t)
        return Denoised(mean + alpha * std**2 / ((alpha * std) ** 2 + sigma**2) * (x - alpha * mean))

    return denoise


def gaussian_ode(schedule: Schedule, x, t, s, mean: float, std: float):
    """Where the probability-flow ODE takes x from time t to s: it keeps the quantile."""
    (mean_t, std_t), (mean_s, std_s) = (gaussian_marginal(schedule, time, mean, std) for time in (t, s))
    return mean_s + std_s / std_t * (x - mean_t)
