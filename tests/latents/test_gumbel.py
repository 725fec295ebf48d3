"""Relaxed draws at their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.latents import gumbel

LOGITS = jnp.array([0.5, -1.0, 1.5, 0.0])


def test_cold_weights_are_draws_of_the_softmax():
    keys = jax.random.split(jax.random.key(0), 20_000)
    weights = jax.jit(lambda: gumbel.relax(jnp.broadcast_to(LOGITS, (20_000, 4)), keys, 1e-3))()
    assert float(jnp.mean(weights.max(-1) > 0.999)) > 0.99
    np.testing.assert_allclose(weights.mean(0), jax.nn.softmax(LOGITS), atol=0.015)


def test_hot_weights_are_equal():
    weights = gumbel.relax(LOGITS[None], jax.random.split(jax.random.key(0), 1), 1e4)
    np.testing.assert_allclose(weights, 0.25, atol=1e-3)


def test_kl_to_equal_codes():
    assert float(gumbel.kl_to_uniform(jnp.zeros(8))) == pytest.approx(0, abs=1e-6)
    assert float(gumbel.kl_to_uniform(jnp.zeros(8).at[3].set(200.0))) == pytest.approx(np.log(8), rel=1e-5)
    p = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    assert float(gumbel.kl_to_uniform(LOGITS)) == pytest.approx((p * np.log(p * 4)).sum(), rel=1e-5)


def test_annealing_is_half_a_cosine():
    found = [float(gumbel.anneal(step, 1.0, 1 / 16, 100)) for step in (0, 50, 100, 500)]
    assert found == pytest.approx([1, (1 + 1 / 16) / 2, 1 / 16, 1 / 16])
    assert float(gumbel.anneal(0, 0.0, 6.6, 0)) == pytest.approx(6.6)
