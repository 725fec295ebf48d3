"""Mixtures of discretised logistics: sums over all levels, float64 from the definition, and frequencies of draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import misfit
from scipy.special import expit, log_softmax

from flaxgen.tokens.logistic import Mixture, log_prob, mean, read_mixture, sample

SCALES = (-9.0, -7.0, -4.0, -1.0, 3.0)
scored = jax.jit(log_prob, static_argnames="levels")
averaged = jax.jit(mean, static_argnames="levels")


def mixture(channels, logistics=3, scale=0.0, seed=0):
    """A random one of a single pixel; its means also lie beyond the edges."""
    rng = np.random.default_rng(seed)
    count = logistics * (1 + 2 * channels + channels * (channels - 1) // 2)
    read = read_mixture(jnp.asarray(rng.normal(0, 1.0, count), jnp.float32), channels)
    return read._replace(log_scales=jnp.maximum(read.log_scales + scale, -7.0))


def all_pixels(channels, levels):
    return jnp.asarray(list(itertools.product(range(levels), repeat=channels)), jnp.int32)


def repeated(one, count):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)), one)


def by_definition(one, pixels, levels):
    """Log-probabilities in float64: logistic by logistic, channel by channel, difference of two sigmoids."""
    logits, means, log_scales, coefficients = (np.asarray(field, np.float64) for field in one)
    total, names = np.zeros((len(pixels), len(logits))), list(itertools.combinations(range(means.shape[0]), 2))
    names.sort(key=lambda pair: (pair[1], pair[0]))
    x = 2 * np.asarray(pixels, np.float64) / (levels - 1) - 1
    for m in range(len(logits)):
        for channel in range(means.shape[0]):
            place = means[channel, m] + sum(
                coefficients[k, m] * x[:, a] for k, (a, b) in enumerate(names) if b == channel
            )
            half, scale = 1 / (levels - 1), np.exp(log_scales[channel, m])
            upper = np.where(x[:, channel] >= 1, 1.0, expit((x[:, channel] + half - place) / scale))
            lower = np.where(x[:, channel] <= -1, 0.0, expit((x[:, channel] - half - place) / scale))
            with np.errstate(divide="ignore"):
                total[:, m] += np.log(upper - lower)
    return np.log(np.exp(total + log_softmax(logits)[None]).sum(-1))


@pytest.mark.parametrize("scale", SCALES)
def test_all_levels_together_are_certain(scale):
    one = mixture(1, scale=scale)
    log_probs = scored(repeated(one, 256), all_pixels(1, 256))
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(np.exp(np.asarray(log_probs, np.float64)).sum(), 1, atol=2e-6)


def test_all_colours_together_are_certain():
    one, pixels = mixture(3, scale=-1.0), all_pixels(3, 17)
    log_probs = np.asarray(scored(repeated(one, len(pixels)), pixels, levels=17), np.float64)
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1, atol=1e-5)
    np.testing.assert_allclose(log_probs, by_definition(one, pixels, 17), rtol=1e-4, atol=1e-4)


def test_of_256_levels_the_last_channel_sums_to_what_the_others_have():
    one, red_green = mixture(3, scale=-2.0), jnp.array([[3, 200], [0, 255], [77, 78]])
    pixels = jnp.concatenate((jnp.repeat(red_green, 256, axis=0), jnp.tile(jnp.arange(256), 3)[:, None]), axis=1)
    found = np.exp(np.asarray(scored(repeated(one, 768), pixels), np.float64)).reshape(3, 256).sum(1)
    two = Mixture(one.logits, one.means[:2], one.log_scales[:2], one.coefficients[:1])
    np.testing.assert_allclose(found, np.exp(by_definition(two, red_green, 256)), rtol=1e-4)


def test_far_from_every_mean_logarithms_stay_finite_and_gradients_too():
    one = Mixture(jnp.zeros(1), jnp.full((1, 1), -1.0), jnp.full((1, 1), -7.0), jnp.zeros((0, 1)))
    value, gradient = jax.jit(jax.value_and_grad(lambda m: log_prob(m, jnp.array([254]))))(one)
    # far out a logistic falls as e^(-x / scale): half a step below level 254 is 253.5 steps of 2/255 above the mean
    np.testing.assert_allclose(value, -507 / 255 * np.exp(7), rtol=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_draws_are_as_frequent_as_they_are_probable(temperature):
    one, draws, pixels = mixture(3, scale=-0.5, seed=3), 20_000, all_pixels(3, 3)
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: sample(one, key, 3, temperature=temperature)))(keys))
    counts = np.bincount(drawn @ [9, 3, 1], minlength=27)
    if temperature == 0:
        assert (counts > 0).sum() == 1
        best = int(one.logits.argmax())
        assert drawn[0, 0] == np.clip(np.round(float(one.means[0, best]) + 1), 0, 2)
        return
    assert misfit(counts, np.exp(by_definition(one, pixels, 3))) < 1


def test_means_are_those_of_the_probabilities():
    levels, one = 4, mixture(3, scale=-0.5, seed=1)
    pixels = all_pixels(3, levels)
    table = np.exp(by_definition(one, pixels, levels)).reshape(levels, levels, levels)
    found = np.asarray(averaged(repeated(one, len(pixels)), pixels, levels=levels)).reshape(levels, levels, levels, 3)
    red = np.arange(levels) @ table.sum((1, 2))
    green = table.sum(2) @ np.arange(levels) / table.sum((1, 2))
    blue = table @ np.arange(levels) / table.sum(2)
    np.testing.assert_allclose(found[..., 0], red, rtol=1e-4)
    np.testing.assert_allclose(found[..., 1], np.broadcast_to(green[:, None, None], (4, 4, 4)), rtol=1e-4)
    np.testing.assert_allclose(found[..., 2], np.broadcast_to(blue[..., None], (4, 4, 4)), rtol=1e-4)


def test_parameters_are_read_within_bounds():
    read = read_mixture(jnp.full((2, 20), -50.0), 3)
    assert [field.shape for field in read] == [(2, 2), (2, 3, 2), (2, 3, 2), (2, 3, 2)]
    assert (read.log_scales == -7).all()
    assert (read.coefficients == -1).all()
    with pytest.raises(ValueError, match="21 parameters a pixel: expected a multiple of 10, for 3 channels"):
        read_mixture(jnp.zeros(21), 3)
