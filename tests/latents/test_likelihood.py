"""Likelihoods of pixels are probabilities: they sum, or integrate, to 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from flaxgen.diffusion.vlb import discretized_log_likelihood
from flaxgen.latents import likelihood


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("log_prob", [likelihood.logistic_log_prob, discretized_log_likelihood])
def test_a_pixels_values_have_probability_1_together(log_prob, levels):
    mean, log_scale = (jnp.array(x)[:, None] for x in ([0.0, 0.9, -1.4, 0.31], [-2.0, -1.0, -4.0, -5.0]))
    values = jnp.broadcast_to(jnp.linspace(-1, 1, levels), (4, levels))
    mean, log_scale = jnp.broadcast_to(mean, values.shape), jnp.broadcast_to(log_scale, values.shape)
    found = jax.jit(lambda: jnp.exp(log_prob(values, mean, log_scale, levels)).sum(1))()
    np.testing.assert_allclose(found, 1, atol=2e-5)


def test_a_far_pixel_still_has_a_gradient():
    def loss(mean):
        return -likelihood.logistic_log_prob(jnp.float32(0.8), mean, jnp.float32(-5.0))

    value, gradient = jax.value_and_grad(loss)(jnp.float32(-0.9))
    assert np.isfinite(value)
    assert float(gradient) == pytest.approx(-np.exp(5), rel=1e-3)  # a logistic's tail is exponential


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (1.5, -1.0), (-0.7, 0.4)])
def test_logit_laplace_is_a_density(mean, log_scale):
    """Summed over even steps of the logit u, of which x(1 - x) is the step of x."""
    u = jnp.linspace(-12, 12, 20_001)
    x = jax.nn.sigmoid(u)
    log_prob = likelihood.logit_laplace_log_prob(x, jnp.full_like(x, mean), jnp.full_like(x, log_scale))
    total = integrate.trapezoid(np.exp(log_prob) * x * (1 - x), u)
    assert total == pytest.approx(1, abs=1e-3)


def test_unit_pixels_there_and_back():
    x = jnp.linspace(-1, 1, 7)
    y = likelihood.to_unit(x)
    np.testing.assert_allclose((y[0], y[-1]), (0.1, 0.9), rtol=1e-6)
    np.testing.assert_allclose(likelihood.from_unit(y), x, atol=1e-6)
    np.testing.assert_array_equal(likelihood.from_unit(jnp.array([0.0, 1.0])), [-1, 1])
