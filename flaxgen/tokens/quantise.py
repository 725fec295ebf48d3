"""Image embeddings as codes: principal components, each in uniform buckets [Ramesh22, sec. 2.2]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flaxgen.types import Keys

QUANTILES = 257


class Quantiser(NamedTuple):
    """What turns embeddings and dot products into codes and back: `Quantiser(**tree)` and `._asdict()` are inverses.

    Component k lies between `low` and `high`; components come in order of decreasing variance. `dot_quantiles` are
    those of the training set's text-image dot products, evenly from 0 to 1; the first and the last bound the buckets.
    """

    mean: Float[Array, " D"]
    components: Float[Array, "D K"]
    low: Float[Array, " K"]
    high: Float[Array, " K"]
    dot_quantiles: Float[Array, " Q"]


class Pca(NamedTuple):
    """The mean, and the orthonormal directions of largest variance, one a column, largest first."""

    mean: Float[np.ndarray, " D"]
    components: Float[np.ndarray, "D K"]


def fit_pca(embeddings: Float[np.ndarray, "N D"], dims: int) -> Pca:
    """The `dims` principal components of the embeddings, in float64 on the host, by the smaller of the two matrices of
    products.

    The largest entry of every direction is positive, so that one data set has one answer.

    Raises:
        ValueError: if there are fewer embeddings or dimensions than `dims`, or a number is not finite.
    """
    count, width = embeddings.shape
    if not 1 <= dims <= min(width, count):
        raise ValueError(f"{dims} principal components of {count} embeddings {width} wide: expected at most the lesser")
    if not np.isfinite(embeddings).all():
        raise ValueError("the embeddings to quantise hold NaN or infinite numbers")
    wide = embeddings.astype(np.float64)
    mean = wide.mean(0)
    centred = wide - mean[None]
    if count >= width:
        components = np.linalg.eigh(centred.T @ centred / count)[1][:, ::-1][:, :dims]
    else:
        components = centred.T @ np.linalg.eigh(centred @ centred.T / count)[1][:, ::-1][:, :dims]
        components /= np.maximum(np.linalg.norm(components, axis=0, keepdims=True), 1e-300)
    largest = np.take_along_axis(components, np.abs(components).argmax(0)[None], 0)
    return Pca(mean, components * np.sign(largest))


def fit_quantiser(embeddings: Float[np.ndarray, "N D"], dots: Float[np.ndarray, " N"], dims: int) -> Quantiser:
    """A quantiser (float32) for `dims` components, from a training set's image embeddings and their dot
    products with the embeddings of their captions.

    Raises:
        ValueError: as `fit_pca`.
    """
    pca = fit_pca(embeddings, dims)
    if not np.isfinite(dots).all():
        raise ValueError("the dot products to quantise hold NaN or infinite numbers")
    values = (embeddings.astype(np.float64) - pca.mean[None]) @ pca.components
    fitted = (*pca, values.min(0), values.max(0), np.quantile(dots.astype(np.float64), np.linspace(0, 1, QUANTILES)))
    return Quantiser(*(jnp.asarray(value, jnp.float32) for value in fitted))


def project(x: Float[Array, "B D"], mean: Float[Array, " D"], components: Float[Array, "D K"]) -> Float[Array, "B K"]:
    """Principal components of x. Full precision: a TPU's own would be coarser than the buckets."""
    return jnp.matmul(x - mean[None], components, precision=jax.lax.Precision.HIGHEST)


def reconstruct(
    values: Float[Array, "B K"], mean: Float[Array, " D"], components: Float[Array, "D K"]
) -> Float[Array, "B D"]:
    """The inverse of `project`, but for what lies outside the span of the components."""
    return jnp.matmul(values, components.T, precision=jax.lax.Precision.HIGHEST) + mean[None]


def to_codes(
    values: Float[Array, "B K"], low: Float[Array, " K"], high: Float[Array, " K"], buckets: int
) -> Int[Array, "B K"]:
    """Which of `buckets` equal parts of [low, high] a value lies in; what lies outside takes the first or the last."""
    extent = jnp.where(high > low, high - low, 1.0)
    codes = jnp.floor((values - low[None]) / extent[None] * buckets)
    return jnp.clip(codes, 0, buckets - 1).astype(jnp.int32)


def from_codes(
    codes: Int[Array, "B K"], low: Float[Array, " K"], high: Float[Array, " K"], buckets: int
) -> Float[Array, "B K"]:
    """The centres of buckets: at most half a bucket from any value of [low, high] that `to_codes` put there."""
    return low[None] + (codes + 0.5) / buckets * (high - low)[None]


def encode(quantiser: Quantiser, embeddings: Float[Array, "B D"], buckets: int) -> Int[Array, "B K"]:
    """The codes of embeddings, `buckets` to a component."""
    values = project(embeddings, quantiser.mean, quantiser.components)
    return to_codes(values, quantiser.low, quantiser.high, buckets)


def decode(quantiser: Quantiser, codes: Int[Array, "B K"], buckets: int) -> Float[Array, "B D"]:
    """The embeddings that codes stand for, in the units of those that the quantiser was fitted to."""
    values = from_codes(codes, quantiser.low, quantiser.high, buckets)
    return reconstruct(values, quantiser.mean, quantiser.components)


def encode_dots(quantiser: Quantiser, dots: Float[Array, " B"], buckets: int) -> Int[Array, " B"]:
    """The codes of text-image dot products, in `buckets` equal parts of the range met in training."""
    quantiles = quantiser.dot_quantiles
    return to_codes(dots[:, None], quantiles[:1], quantiles[-1:], buckets)[:, 0]


def draw_dots(quantiser: Quantiser, keys: Keys, buckets: int) -> Int[Array, " B"]:
    """Codes of dot products from the upper half of the training set's, which is what sampling is conditioned on."""
    places = jax.vmap(lambda key: jax.random.uniform(key, minval=0.5))(keys)
    quantiles = quantiser.dot_quantiles
    dots = jnp.interp(places, jnp.linspace(0.0, 1.0, quantiles.shape[0]), quantiles)
    return encode_dots(quantiser, dots, buckets)
