import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import norm

from flaxgen.diffusion import schedules, vlb
from flaxgen.types import Denoised

GRID = np.arange(256) / 127.5 - 1
STD = 0.25


def quantized_gaussian():
    """Probabilities of the 256 values of N(0, STD^2) rounded to 8 bits."""
    edges = np.concatenate([[-np.inf], (GRID[1:] + GRID[:-1]) / 2, [np.inf]])
    return np.diff(norm.cdf(edges / STD))


PMF = quantized_gaussian()
ENTROPY = -np.sum(PMF * np.log2(PMF))
VARIANCE = np.sum(PMF * GRID**2)


def exact_terms(alpha_bar, model_variance):
    """E of every term of the bound, float64, for that data and the best linear denoiser; entry 0 is -log p(x0 | x_1).

    `model_variance(small, beta)` gives the variance of p, `small` being clipped at its second value.
    """
    before = np.append(1, alpha_bar[:-1])
    alpha, variance, beta = np.sqrt(alpha_bar), 1 - alpha_bar, 1 - alpha_bar / before
    shrink = alpha * VARIANCE / (alpha_bar * VARIANCE + variance)
    mse = (1 - shrink * alpha) ** 2 * VARIANCE + shrink**2 * variance
    small = beta * (1 - before) / variance
    model = model_variance(np.append(small[1], small[1:]), beta)
    ratio = small[1:] / model[1:]
    weight = before[1:] * (beta[1:] / variance[1:]) ** 2
    kl = 0.5 * (ratio - 1 - np.log(ratio) + weight * mse[1:] / model[1:])

    eps, steps = np.linspace(-8, 8, 2001, retstep=True)
    mean = shrink[0] * (alpha[0] * GRID[:, None] + np.sqrt(variance[0]) * eps)
    nll = -exact_log_likelihood(GRID[:, None], mean, np.sqrt(model[0]))
    first = np.sum(PMF[:, None] * norm.pdf(eps) * nll) * steps
    return np.append(first, kl) / np.log(2), mse


def exact_log_likelihood(x0, mean, std):
    upper = np.where(x0 > 0.999, np.inf, (x0 - mean + 1 / 255) / std)
    lower = np.where(x0 < -0.999, -np.inf, (x0 - mean - 1 / 255) / std)
    upper, lower = np.where(upper + lower > 0, -lower, upper), np.where(upper + lower > 0, -upper, lower)
    return log_ndtr(upper) + np.log1p(-np.exp(log_ndtr(lower) - log_ndtr(upper)))


def linear_alpha_bar(timesteps):
    return np.cumprod(1 - np.linspace(1e-4, 0.02, timesteps) * 1000 / timesteps)


def best_denoiser(schedule, var_mix=None):
    def denoise(x, t):
        alpha, sigma = schedule(t)
        x0 = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x
        return Denoised(x0, None if var_mix is None else jnp.full_like(x, var_mix))

    return denoise


@pytest.fixture(scope="module")
def data():
    """Drawn by quantiles, so that it has the data's mean and variance to 1e-4."""
    places = np.searchsorted(np.cumsum(PMF), (np.arange(2**14) + 0.5) / 2**14)
    return jnp.asarray(GRID[np.random.default_rng(0).permutation(places)].reshape(4, 32, 32, 4), jnp.float32)


@pytest.mark.parametrize(
    ("variance", "var_mix", "model_variance"),
    [
        ("small", None, lambda small, beta: small),
        ("large", None, lambda small, beta: np.append(small[0], beta[1:])),
        ("learned", 0.3, lambda small, beta: small**0.7 * beta**0.3),
    ],
)
def test_bound_of_a_gaussian_model_is_the_analytic_one(data, variance, var_mix, model_variance):
    timesteps = 100
    schedule = schedules.linear(timesteps)
    found = jax.jit(
        lambda x0, key: vlb.bits_per_dim(best_denoiser(schedule, var_mix), schedule, x0, timesteps, variance, key)
    )(data, jax.random.key(0))
    terms, mse = exact_terms(linear_alpha_bar(timesteps), model_variance)
    assert found.total.shape == (4,)
    assert float(found.total.mean()) == pytest.approx(terms.sum() + float(found.prior.mean()), rel=4e-3)
    np.testing.assert_allclose(found.total, terms.sum(), rtol=0.03)
    # 5 sampling errors of 16,384 squares; float32 leaves 1e-6 of a term
    np.testing.assert_allclose(found.terms.mean(axis=1), terms, rtol=0.055, atol=1e-6)
    np.testing.assert_allclose(found.mse.mean(axis=1), mse, rtol=0.055)
    np.testing.assert_allclose(found.total, found.prior + found.terms.sum(axis=0), rtol=1e-6)


def geometric_alpha_bar(timesteps):
    """Sigma / alpha in equal ratios. It starts near a bin's width: below, the linear denoiser is not the best."""
    return 1 / (1 + np.geomspace(0.006, 100, timesteps) ** 2)


def test_the_bound_falls_to_the_entropy(data):
    """With ever more steps it approaches the mean -log2 p(x0) from above, exactly and as computed."""
    exact = [
        exact_terms(geometric_alpha_bar(timesteps), lambda small, beta: beta)[0].sum()
        for timesteps in (30, 100, 300, 1000, 3000)
    ]
    assert (np.diff(exact) < 0).all()
    assert ENTROPY < exact[-1] < 1.002 * ENTROPY
    assert pytest.approx(np.log2(STD * np.sqrt(2 * np.pi * np.e) * 127.5), rel=1e-3) == ENTROPY

    schedule = schedules.table(geometric_alpha_bar(1000))
    found = jax.jit(
        lambda x0, key: vlb.bits_per_dim(best_denoiser(schedule, 1.0), schedule, x0, 1000, "learned", key).total.mean(),
        compiler_options={"xla_backend_optimization_level": 2},  # it runs longer than it compiles
    )(data, jax.random.key(1))
    assert ENTROPY < found < 1.01 * ENTROPY
    assert found == pytest.approx(exact[3], rel=2e-3)


@jax.jit
def log_likelihood(x0, mean, std):
    x0, mean = jnp.broadcast_arrays(jnp.asarray(x0, jnp.float32), jnp.asarray(mean, jnp.float32))
    return vlb.discretized_log_likelihood(x0, mean, jnp.log(std))


@pytest.mark.parametrize("std", [1e-3, 0.02, 1.0])
def test_bins_hold_the_whole_probability(std):
    for mean in (-1.3, -0.2, 0.9999):
        assert np.exp(log_likelihood(GRID, mean, std)).sum() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("std", [1e-3, 0.0075, 0.1, 1.0, 3.0])
def test_likelihood_is_exact_into_the_tails(std):
    x0, mean = np.meshgrid(GRID[[0, 1, 100, 254, 255]], np.linspace(-1.2, 1.2, 49))
    exact = exact_log_likelihood(x0, mean, std)
    reached = np.abs(x0 - mean) / std < 900
    found = log_likelihood(x0, mean, std)
    np.testing.assert_allclose(found[reached], exact[reached], rtol=1e-3, atol=1e-4)


def test_likelihood_has_a_finite_gradient_everywhere():
    def total(mean, std):
        return log_likelihood(np.array([-1.0, 0.3, 1.0]), jnp.full(3, mean), std).sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))
    for std in (1e-6, 1e-3, 1.0, 100.0):
        for mean in (-10.0, -0.5, 0.0, 10.0):
            assert np.isfinite(gradient(mean, std)).all()
    assert gradient(-0.9, 0.01)[0] > 0 > gradient(2.0, 0.01)[0]


def test_gaussian_kl_against_quadrature():
    grid, step = np.linspace(-12, 12, 20001, retstep=True)
    p, q = norm.logpdf(grid, 0.3, 1.5), norm.logpdf(grid, -0.4, 0.8)
    exact = np.sum(np.exp(q) * (q - p)) * step
    found = vlb.gaussian_kl(jnp.float32(0.7), jnp.log(jnp.float32(0.64)), jnp.log(jnp.float32(2.25)))
    assert found == pytest.approx(exact, rel=1e-5)
    assert vlb.gaussian_kl(jnp.float32(0), jnp.float32(-3), jnp.float32(-3)) == 0


def test_prior_term_vanishes_with_the_signal():
    x0 = jnp.ones((2, 3, 3, 1))
    alpha, sigma = (float(value) for value in schedules.linear(0)(1.0))
    exact = 0.5 * (sigma**2 + alpha**2 - 1 - np.log(sigma**2)) / np.log(2)
    np.testing.assert_allclose(vlb.prior_term(x0, schedules.linear(0)), exact, rtol=1e-2)
    assert vlb.prior_term(x0, schedules.rectified_flow(0)).max() == 0
    assert vlb.prior_term(x0, schedules.edm(0)).max() < 2e-4


def test_errors_name_the_value():
    schedule, x0, key = schedules.linear(100), jnp.zeros((1, 2)), jax.random.key(0)
    with pytest.raises(ValueError, match="timesteps=0 must be at least 1"):
        vlb.bits_per_dim(best_denoiser(schedule), schedule, x0, 0, "small", key)
    with pytest.raises(ValueError, match="learned_variance=True"):
        vlb.bits_per_dim(best_denoiser(schedule), schedule, x0, 10, "learned", key)
