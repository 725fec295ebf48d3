"""ADA's filtering of pictures: the loudness of four bands of frequencies [Karras20b, app. B]."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64

from flaxgen.types import PRNGKey, Scalar

GAIN_STD = 1.0
"""Of the logarithms to base 2."""
POWER = np.array([10, 1, 1, 1], np.float32) / 13
"""What share of a picture's power is in each band, from low to high: spectra fall with 1 / f."""
BANDS = len(POWER)
SYM2 = np.array([1 - 3**0.5, 3 - 3**0.5, 3 + 3**0.5, 1 + 3**0.5]) / (4 * 2**0.5)
"""The low-pass filter of the wavelet of that name [Daubechies92, table 6.1]."""


def filter_bank() -> Float64[np.ndarray, "BANDS taps"]:
    """Symmetric filters [BANDS taps], which sum to the identity: an octave each from the highest down, and the rest."""
    low, high = (np.convolve(taps, taps[::-1]) / 2 for taps in (SYM2, SYM2 * (1, -1, 1, -1)))
    bank = np.eye(BANDS, 1)
    for band in range(1, BANDS):
        spread = np.zeros((BANDS, 2 * bank.shape[1] - 1))
        spread[:, ::2] = bank
        bank = np.stack([np.convolve(taps, low) for taps in spread])
        beside = (bank.shape[1] - len(high)) // 2
        bank[band] += np.pad(high, beside)
    return bank


@functools.cache
def band_matrices(side: int) -> Float32[np.ndarray, "BANDS side side"]:
    """[BANDS side side]: each filter along one axis as a matrix, with pixels mirrored about the outermost centres."""
    bank = filter_bank()
    taps = bank.shape[1]
    pixels = np.pad(np.eye(side), ((taps // 2, taps // 2), (0, 0)), mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(pixels, taps, axis=0)
    return np.einsum("bk,ijk->bij", bank, around).astype(np.float32)


def draw_gains(key: PRNGKey, probability: Scalar) -> tuple[Float[Array, "BANDS"], Bool[Array, ""]]:
    """A factor a band, each drawn with that probability, such that pictures keep the power they are expected to have;
    and whether there is any of them."""
    chance_key, normal_key = jax.random.split(key)
    drawn = jax.random.uniform(chance_key, (BANDS,)) < probability
    gain = jnp.where(drawn, jnp.exp2(GAIN_STD * jax.random.normal(normal_key, (BANDS,))), 1)
    alone = jnp.where(jnp.eye(BANDS, dtype=bool), gain[:, None], 1)
    alone /= jnp.sqrt(jnp.sum(POWER[None] * alone**2, axis=1, keepdims=True))
    return jnp.prod(alone, axis=0), jnp.any(drawn)


def amplify(image: Float[Array, "S S C"], gains: Float[Array, "BANDS"]) -> Float[Array, "S S C"]:
    """Rows, then columns through the bands' filters, each band by its gain: two products with one matrix."""
    highest = jax.lax.Precision.HIGHEST
    matrix = jnp.tensordot(gains, band_matrices(image.shape[0]), 1, precision=highest)
    image = jnp.einsum("ij,jwc->iwc", matrix, image, precision=highest)
    return jnp.einsum("ij,hjc->hic", matrix, image, precision=highest)
