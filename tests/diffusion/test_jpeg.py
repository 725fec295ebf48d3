import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from PIL import Image

from flaxgen.diffusion.jpeg import dct, inverse_dct, jpeg, quantisation

compress = jax.jit(jpeg)


def picture(height: int, width: int, channels: int) -> np.ndarray:
    """Bytes with slopes, an edge and some noise."""
    y, x = np.mgrid[:height, :width]
    slopes = [90 + 2 * y + x, 200 - x, 60 + 50 * np.sin(x / 5 + y / 9)][:channels]
    pixels = np.stack(slopes, axis=-1) + 100 * ((x - 20) ** 2 + (y - 15) ** 2 < 100)[..., None]
    noise = np.random.default_rng(0).normal(0, 6, pixels.shape)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def through_pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file, formats=["JPEG"])).reshape(pixels.shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95, 100])
def test_against_pillow(channels, quality):
    """Sides that are no multiples of 8. libjpeg keeps coefficients to an eighth, so that of those between two steps
    some go the other way, the more the finer the steps; at 75 and below 4.5 levels and more are lost."""
    pixels = picture(40, 52, channels)
    ours = (np.asarray(compress(jnp.asarray(pixels / 127.5 - 1, jnp.float32), float(quality))) + 1) * 127.5
    np.testing.assert_allclose(ours, np.round(ours), atol=1e-3)
    assert np.abs(ours - through_pillow(pixels, quality)).mean() < (0.3 if quality <= 75 else 0.8)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 80, 95, 100])
def test_tables_are_those_of_libjpeg(quality):
    file = io.BytesIO()
    Image.fromarray(picture(16, 16, 3)).save(file, "JPEG", quality=quality)
    luminance, chrominance = Image.open(file, formats=["JPEG"]).quantization.values()
    expected = np.array([luminance, chrominance, chrominance]).reshape(3, 8, 8)
    np.testing.assert_array_equal(quantisation(3, quality), expected)


def test_dct_against_scipy():
    blocks = np.random.default_rng(0).normal(size=(3, 2, 8, 8))
    expected = scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho")
    ours = dct(jnp.asarray(blocks, jnp.float32))
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    np.testing.assert_allclose(inverse_dct(ours), blocks, atol=2e-6)


def test_quality_is_traced():
    image = jnp.asarray(picture(16, 16, 3) / 127.5 - 1, jnp.float32)
    batch = jax.jit(jax.vmap(jpeg, (None, 0)))(image, jnp.array([5.0, 50.0, 95.0]))
    error = np.abs(np.asarray(batch) - image[None]).mean(axis=(1, 2, 3))
    assert error[0] > error[1] > error[2]


def test_channels_it_does_not_know():
    with pytest.raises(ValueError, match="1 or 3 channels, this one has 4"):
        jpeg(jnp.zeros((8, 8, 4)), 50)
