"""The variational autoencoder's terms against integrals, and its bounds where log p(x) is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from flaxgen.latents import gaussian


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (1.3, -2.0), (-0.4, 1.5)])
def test_kl_is_the_integral(mean, log_variance):
    q = stats.norm(mean, np.exp(log_variance / 2))
    expected, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), -20, 20)
    found = gaussian.kl_to_normal(jnp.float32(mean), jnp.float32(log_variance))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_moments_are_clipped_halves_and_draws_have_them():
    h = jnp.concatenate((jnp.full((1, 2, 2), 3.0), jnp.full((1, 2, 2), 99.0)), -1)
    mean, log_variance = gaussian.split_moments(h)
    np.testing.assert_array_equal(mean, 3.0)
    np.testing.assert_array_equal(log_variance, 20.0)
    drawn = gaussian.draw(
        jnp.full((4000, 2), 3.0), jnp.full((4000, 2), np.log(4.0)), jax.random.split(jax.random.key(0), 4000)
    )
    assert float(drawn.mean()) == pytest.approx(3, abs=0.1)
    assert float(drawn.std()) == pytest.approx(2, abs=0.1)


def test_free_bits_leave_a_cheap_channel_alone():
    """Channels of 0.2 and 3 nats, each over two places; only the second has a gradient."""
    kl = jnp.array([[[0.1, 1.0], [0.1, 2.0]]])
    cost = jax.value_and_grad(lambda kl: gaussian.free_bits(kl, 0.5).sum())
    value, gradient = cost(kl)
    assert float(value) == pytest.approx(3.5)
    np.testing.assert_array_equal(gradient[..., 0], 0)
    np.testing.assert_array_equal(gradient[..., 1], 1)
    np.testing.assert_allclose(gaussian.free_bits(kl, 0.0), kl.sum(), rtol=1e-6)


@pytest.fixture(scope="module")
def linear():
    """Probabilistic PCA, an autoencoder whose log p(x) and posterior are known [Tipping99]: weights W = U (L - s2)^0.5
    of a covariance with eigenvalues L make the posterior's covariance diagonal."""
    rng, dims, latent, s2 = np.random.default_rng(0), 6, 3, 0.2
    basis = np.linalg.qr(rng.normal(size=(dims, dims)))[0][:, :latent]
    weights = basis * np.sqrt(np.array([3.0, 1.5, 0.7]) - s2)
    covariance = weights @ weights.T + s2 * np.eye(dims)
    x = rng.multivariate_normal(np.zeros(dims), covariance, size=32)
    precision = weights.T @ weights + s2 * np.eye(latent)
    mean, variance = x @ weights @ np.linalg.inv(precision), s2 * np.diag(np.linalg.inv(precision))
    truth = stats.multivariate_normal(np.zeros(dims), covariance).logpdf(x)

    @jax.jit
    def log_weights(keys, shift):
        """Of 64 draws a picture from a posterior that is `shift` off."""
        q_mean, log_variance = jnp.asarray(mean) + shift, jnp.broadcast_to(jnp.log(variance), mean.shape)

        def one(key):
            z = gaussian.draw(q_mean, log_variance, jax.random.split(key, len(x)))
            error = ((jnp.asarray(x) - z @ weights.T) ** 2).sum(-1)
            log_likelihood = -0.5 * (error / s2 + dims * np.log(2 * np.pi * s2))
            return gaussian.log_weight(log_likelihood, z, q_mean, log_variance)

        return jax.lax.map(one, keys)

    return truth, lambda shift: log_weights(jax.random.split(jax.random.key(1), 64), jnp.float32(shift))


def test_with_the_true_posterior_every_draw_is_log_p(linear):
    truth, log_weights = linear
    weights = log_weights(0.0)
    np.testing.assert_allclose(weights, np.broadcast_to(truth, weights.shape), atol=1e-4)
    np.testing.assert_allclose(gaussian.importance_bound(weights), truth, atol=1e-4)


def test_with_another_posterior_the_bound_rises_to_log_p(linear):
    truth, log_weights = linear
    weights = log_weights(0.3)
    bounds = [float(gaussian.importance_bound(weights[:k]).mean()) for k in (1, 4, 16, 64)]
    assert bounds == sorted(bounds)
    assert float(weights.mean()) < bounds[-1] <= truth.mean() + 0.02
    assert truth.mean() - bounds[-1] < 0.2 * (truth.mean() - float(weights.mean()))
