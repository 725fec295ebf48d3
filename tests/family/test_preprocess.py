"""Pictures at the size of a net, beside Pillow doing what transformers' CLIPImageProcessor says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flaxgen.data import unit_range
from flaxgen.family.extractor import Preprocess, fit_square

SIZE = 12
PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
WAYS = [
    Preprocess(),
    Preprocess(short_side=16),
    Preprocess(squash=True),
    Preprocess(filter="bilinear"),
    Preprocess(filter="lanczos"),
]


def picture(height, width):
    """Noise of so little contrast that nothing is cut off at 0 and 255, as Pillow does after rows and again after
    columns."""
    return np.random.default_rng(0).integers(80, 176, (height, width, 3), dtype=np.uint8)


def expected(image, how):
    height, width = image.shape[:2]
    side, short = how.short_side or SIZE, min(height, width)
    shape = (side, side) if how.squash else (int(side * width / short), int(side * height / short))
    resized = np.asarray(Image.fromarray(image).resize(shape, PILLOW[how.filter]))
    top, left = ((length - SIZE) // 2 for length in resized.shape[:2])
    return resized[top : top + SIZE, left : left + SIZE]


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("shape", [(100, 33), (9, 20)], ids=str)
def test_as_pillow(shape, how):
    """Within what Pillow loses by rounding to 8 bits after rows and after columns."""
    image = picture(*shape)
    fitted = jax.jit(fit_square, static_argnums=(1, 2))(unit_range(jnp.asarray(image[None])), SIZE, how)
    np.testing.assert_allclose((np.asarray(fitted[0]) + 1) * 127.5, expected(image, how), atol=1.51)


def test_a_square_of_the_size_stays():
    pixels = unit_range(jnp.asarray(picture(SIZE, SIZE)[None]))
    np.testing.assert_array_equal(fit_square(pixels, SIZE, Preprocess()), pixels)


def test_what_would_be_smaller_than_the_net():
    with pytest.raises(ValueError, match=r"preprocess\.short_side=8: expected the net's image_size=12 or more"):
        fit_square(jnp.zeros((1, 30, 40, 3)), SIZE, Preprocess(short_side=8))
    with pytest.raises(ValueError, match=r"short_side=-1: expected 0"):
        Preprocess(short_side=-1)
