"""Mixtures of discretised logistics for pixels [Salimans17, sec. 2.1-2.2]: probabilities of levels, and draws.

Levels 0 .. L - 1 stand at -1 .. 1. A level has what the logistic distribution has within half a step of it; the first
has all that lies below too, and the last all above. Channels of a pixel come one after the other: the mean of each
follows the levels before it linearly, with coefficients of its logistic.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.tokens.sampling import Choose, make_choice
from flaxgen.types import PRNGKey, Scalar

LEAST_LOG_SCALE = -7.0


class Mixture(NamedTuple):
    """M logistics for each pixel of C channels; means and scales are in units where all levels span -1 .. 1.

    `coefficients` say how far a mean follows an earlier channel: of channel 1 behind 0, of 2 behind 0, 2 behind 1, ...
    """

    logits: Float[Array, "*S M"]
    means: Float[Array, "*S C M"]
    log_scales: Float[Array, "*S C M"]
    coefficients: Float[Array, "*S E M"]


def read_mixture(parameters: Float[Array, "*S P"], channels: int) -> Mixture:
    """A net's P = M (1 + 2 C + C (C - 1) / 2) numbers a pixel, in the order of Mixture's fields.

    Log-scales are at least -7; coefficients are between -1 and 1.

    Raises:
        ValueError: if P is no multiple of what one logistic takes.
    """
    pairs = channels * (channels - 1) // 2
    each, count = 1 + 2 * channels + pairs, parameters.shape[-1]
    if channels < 1 or count % each:
        raise ValueError(f"{count} parameters a pixel: expected a multiple of {each}, for {channels} channels")
    rows = parameters.reshape(*parameters.shape[:-1], each, count // each)
    logits, means, log_scales, coefficients = jnp.split(rows, (1, 1 + channels, 1 + 2 * channels), axis=-2)
    return Mixture(logits[..., 0, :], means, jnp.maximum(log_scales, LEAST_LOG_SCALE), jnp.tanh(coefficients))


def log_prob(mixture: Mixture, pixels: Int[Array, "*S C"], levels: int = 256) -> Float[Array, "*S"]:
    """Log-probability of every pixel, all its channels together, in nats."""
    each = jnp.sum(_channels_log_prob(mixture, pixels, levels), axis=-2)
    return jax.nn.logsumexp(jax.nn.log_softmax(mixture.logits) + each, axis=-1)


def sample(mixture: Mixture, key: PRNGKey, levels: int = 256, *, temperature: Scalar = 1.0) -> Int[Array, " C"]:
    """The levels of one pixel (the fields of `mixture` have no axes S), drawn from exactly what `log_prob` gives.

    Another `temperature` is that of the choice among the logistics, and a factor of their scales; at 0 the one that
    weighs most takes the levels nearest to its means.
    """
    which_key, noise_key = jax.random.split(key)
    which = make_choice(temperature)(mixture.logits, which_key)
    _, means, log_scales, coefficients = (field[..., which] for field in mixture)
    x = means + temperature * jnp.exp(log_scales) * jax.random.logistic(noise_key, means.shape)
    drawn: list[Array] = []
    for channel in range(means.shape[0]):
        value = x[channel]
        for coefficient, level in zip(coefficients[_pairs(channel)], drawn, strict=True):
            value = value + coefficient * _unit(level, levels)
        drawn.append(_nearest(value, levels))
    return jnp.stack(drawn)


def make_pixel_choice(channels: int, levels: int = 256, temperature: Scalar = 1.0) -> Choose:
    """Draws the levels of a pixel from a net's parameters of its mixture, for `sample_without_cache`."""
    return lambda parameters, key: sample(read_mixture(parameters, channels), key, levels, temperature=temperature)


def mean(mixture: Mixture, pixels: Int[Array, "*S C"], levels: int = 256) -> Float[Array, "*S C"]:
    """The mean level of every channel, 0 .. L - 1, given the levels of `pixels` in the channels before it.

    With one channel `pixels` are not read. Takes L times the memory of the mixture.
    """
    log_probs = _channels_log_prob(mixture, pixels, levels)
    before = jnp.cumsum(log_probs, axis=-2) - log_probs
    weights = jax.nn.softmax(mixture.logits[..., None, :] + before, axis=-1)
    lower_edges = _unit(jnp.arange(1, levels) - 0.5, levels)
    offsets = lower_edges.reshape(-1, *(1,) * mixture.means.ndim) - _means(mixture, pixels, levels)[None]
    # the mean of what is 0 or more is the sum over k of how probable it is to reach k
    reached = jnp.sum(jax.nn.sigmoid(-offsets * jnp.exp(-mixture.log_scales)[None]), axis=0)
    return jnp.sum(weights * reached, axis=-1)


def _channels_log_prob(mixture: Mixture, pixels, levels: int) -> Float[Array, "*S C M"]:
    """Of every logistic and channel, given the channels before."""
    level = pixels[..., None]
    centre = _unit(level, levels) - _means(mixture, pixels, levels)
    inverse = jnp.exp(-mixture.log_scales)
    half = inverse / (levels - 1)
    upper, lower = centre * inverse + half, centre * inverse - half
    # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - e^(l - u)), and no factor loses digits in either tail
    inside = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-2 * half))
    open_above = jnp.where(level == levels - 1, jax.nn.log_sigmoid(-lower), inside)
    return jnp.where(level == 0, jax.nn.log_sigmoid(upper), open_above)


def _means(mixture: Mixture, pixels, levels: int) -> Float[Array, "*S C M"]:
    """Every channel's means, moved by the levels of the channels before it."""
    x = _unit(pixels, levels)[..., None]
    moved = []
    for channel in range(mixture.means.shape[-2]):
        follows = mixture.coefficients[..., _pairs(channel), :] * x[..., :channel, :]
        moved.append(mixture.means[..., channel, :] + jnp.sum(follows, axis=-2))
    return jnp.stack(moved, axis=-2)


def _pairs(channel: int) -> slice:
    """Where a channel's coefficients stand."""
    first = math.comb(channel, 2)
    return slice(first, first + channel)


def _unit(levels_of: Array, levels: int) -> Float[Array, "..."]:
    """Levels 0 .. L - 1 as -1 .. 1."""
    return 2 * levels_of / (levels - 1) - 1


def _nearest(x: Float[Array, "*S"], levels: int) -> Int[Array, "*S"]:
    """The level whose bin holds x."""
    return jnp.clip(jnp.round((x + 1) * (levels - 1) / 2), 0, levels - 1).astype(jnp.int32)
