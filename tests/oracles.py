"""Closed forms: what a perfect net would predict and where the equations then lead; how draws fit a distribution."""

import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

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


def misfit(counts, probabilities) -> float:
    """The chi-square statistic over its 99.99 % quantile: below 1 for counts of draws with these probabilities.

    What is improbable counts together; what is impossible must not have been drawn.
    """
    counts, expected = np.asarray(counts), counts.sum() * np.asarray(probabilities, np.float64)
    assert not counts[expected == 0].any()
    rare = expected < 5
    counts, expected = (np.append(x[~rare], x[rare].sum()) for x in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    return ((counts - expected) ** 2 / expected).sum() / chi2.ppf(0.9999, len(expected) - 1)
