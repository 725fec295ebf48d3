"""What JPEG does to a picture, as a function on the device: YCbCr, 8x8 DCT, quantisation, and back.

Without subsampling of colour and without the entropy coding, which loses nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaxgen.types import Scalar

BLOCK = 8
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
"""Quantisation of Y at quality 50 [T81, table K.1]."""
CHROMINANCE = np.full((BLOCK, BLOCK), 99, np.float32)
"""Quantisation of Cb and Cr at quality 50 [T81, table K.2]."""
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
TO_YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], np.float64
)
"""Rows Y, Cb, Cr of columns R, G, B, all in 0 .. 255 about a grey of 128 for the colours [JFIF]."""


def jpeg(image: Float[Array, "H W C"], quality: Scalar) -> Float[Array, "H W C"]:
    """The picture as it comes back from a baseline JPEG file [T81] of libjpeg's `quality`, 1 to 100, traced or not.

    The picture is in [-1, 1] and so is the result, on the 256 levels of a byte. Three channels are RGB, one is grey;
    sides need not be multiples of 8.

    Raises:
        ValueError: for another number of channels.
    """
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise ValueError(f"JPEG knows pictures of 1 or 3 channels, this one has {channels}")
    pixels = _to_byte(127.5 * (image.astype(jnp.float32) + 1))
    planes = pixels - 128 if channels == 1 else jnp.round(_mix(pixels - 128, TO_YCBCR))
    sides = ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0))
    planes = _quantised(jnp.pad(planes, sides, mode="edge"), quality)[:height, :width]
    planes = _to_byte(planes + 128) - 128
    pixels = planes + 128 if channels == 1 else _to_byte(_mix(planes, np.linalg.inv(TO_YCBCR)) + 128)
    return (pixels / 127.5 - 1).astype(image.dtype)


def dct(blocks: Float[Array, "... 8 8"]) -> Float[Array, "... 8 8"]:
    """The orthonormal DCT-II of rows and columns [T81, A.3.3]."""
    basis = _basis()
    return jnp.einsum("uy,...yx,vx->...uv", basis, blocks, basis, precision=jax.lax.Precision.HIGHEST)


def inverse_dct(coefficients: Float[Array, "... 8 8"]) -> Float[Array, "... 8 8"]:
    """Back from `dct`."""
    basis = _basis()
    return jnp.einsum("uy,...uv,vx->...yx", basis, coefficients, basis, precision=jax.lax.Precision.HIGHEST)


def quantisation(channels: int, quality: Scalar) -> Float[Array, "C 8 8"]:
    """The tables of libjpeg at `quality`: Y first, then the colours; whole numbers in 1 .. 255."""
    quality = jnp.clip(jnp.asarray(quality, jnp.float32), 1, 100)
    percent = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    tables = jnp.stack([LUMINANCE, *[CHROMINANCE] * (channels - 1)])
    return jnp.clip(jnp.floor((tables * percent + 50) / 100), 1, 255)


def _quantised(planes: Float[Array, "H W C"], quality: Scalar) -> Float[Array, "H W C"]:
    height, width, channels = planes.shape
    blocks = planes.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels).transpose(0, 2, 4, 1, 3)
    steps = quantisation(channels, quality)[None, None]
    blocks = inverse_dct(jnp.round(dct(blocks) / steps) * steps)
    return blocks.transpose(0, 3, 1, 4, 2).reshape(planes.shape)


def _basis() -> Float[Array, "8 8"]:
    frequency, place = np.arange(BLOCK)[:, None], np.arange(BLOCK)[None]
    basis = np.cos(np.pi * frequency * (2 * place + 1) / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] = np.sqrt(1 / BLOCK)
    return jnp.asarray(basis, jnp.float32)


def _mix(pixels: Float[Array, "H W C"], matrix: np.ndarray) -> Float[Array, "H W C"]:
    return jnp.einsum("hwc,dc->hwd", pixels, jnp.asarray(matrix, jnp.float32), precision=jax.lax.Precision.HIGHEST)


def _to_byte(pixels: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    return jnp.clip(jnp.round(pixels), 0, 255)
