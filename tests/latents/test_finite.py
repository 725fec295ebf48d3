"""Levels and signs: every code has one value, every value its code, and gradients pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.latents import finite


@pytest.mark.parametrize("levels", [(8, 6, 5), (3, 4), (7, 5, 5)])
def test_codes_and_values_are_one_to_one(levels):
    codes = jnp.arange(int(np.prod(levels)))
    values = finite.levels_of_codes(codes, levels)
    assert len({tuple(row) for row in np.asarray(values).tolist()}) == len(codes)
    assert float(jnp.abs(values).max()) <= 1
    np.testing.assert_array_equal(finite.codes_of_levels(values, levels), codes)


@pytest.mark.parametrize("levels", [(8,), (5,), (4,), (3,)])
def test_all_levels_are_reached_and_no_other(levels):
    z = jnp.linspace(-9, 9, 4001)[:, None]
    rounded = finite.round_levels(z, levels)
    np.testing.assert_array_equal(jnp.unique(finite.codes_of_levels(rounded, levels)), jnp.arange(levels[0]))
    assert (np.diff(rounded[:, 0]) >= 0).all()


def test_zero_is_the_middle_and_the_gradient_is_the_bounds():
    levels = (8, 5)
    np.testing.assert_allclose(finite.bound(jnp.zeros((1, 2)), levels), 0, atol=1e-6)
    z = jnp.array([[0.3, -0.8]])
    width = np.array([4, 2])
    found = jax.grad(lambda z: finite.round_levels(z, levels).sum())(z)
    expected = jax.grad(lambda z: (finite.bound(z, levels) / jnp.asarray(width)[None]).sum())(z)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_two_levels_are_refused():
    with pytest.raises(ValueError, match=r"levels=\(2, 8\): expected 3 or more"):
        finite.bound(jnp.zeros((1, 2)), (2, 8))


def test_signs_and_codes_are_one_to_one():
    codes = jnp.arange(16)
    signs = finite.signs_of_codes(codes, 4)
    np.testing.assert_array_equal(finite.codes_of_signs(signs), codes)
    np.testing.assert_array_equal(finite.sign(jnp.array([-0.2, 0.0, 3.0])), [-1, 1, 1])
    np.testing.assert_array_equal(jax.grad(lambda z: finite.sign(z).sum())(jnp.ones(3)), 1)


def test_sign_probabilities_are_those_of_distances():
    z = jnp.array([[0.4, -0.3, 0.1]])
    codes = np.asarray(finite.signs_of_codes(jnp.arange(8), 3))
    distance = ((np.asarray(z) - codes) ** 2).sum(-1)
    expected = np.exp(-1.5 * distance) / np.exp(-1.5 * distance).sum()
    np.testing.assert_allclose(jnp.exp(finite.sign_log_probabilities(z, 1.5)[0]), expected, rtol=1e-5)
    sure = jax.grad(lambda z: finite.entropy_terms(finite.sign_log_probabilities(z, 1e4), jnp.full(8, 1 / 8))[0])(z)
    assert np.isfinite(sure).all()


def test_the_linear_term_has_the_gradient_of_the_means_entropy():
    logits = jax.random.normal(jax.random.key(0), (32, 8))

    def entropy(logits):
        mean = jax.nn.softmax(logits).mean(0)
        return -jnp.sum(mean * jnp.log(mean))

    def stand_in(logits):
        mean = jax.lax.stop_gradient(jax.nn.softmax(logits).mean(0))
        return finite.entropy_terms(jax.nn.log_softmax(logits), mean)[1]

    assert float(entropy(logits)) == pytest.approx(float(stand_in(logits)), rel=1e-5)
    np.testing.assert_allclose(jax.grad(stand_in)(logits), jax.grad(entropy)(logits), atol=1e-6)
    each = finite.entropy_terms(jax.nn.log_softmax(logits), jnp.full(8, 1 / 8))[0]
    assert 0 < float(each) < np.log(8)
