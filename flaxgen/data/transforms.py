"""What happens to a picture between its file and the net: pure functions of an array and, where random, a generator."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flaxgen.data.decode import MAX_PIXELS, BrokenImage

Transform: TypeAlias = Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]]
"""A random change of one example; it draws from the generator and from nothing else."""


FILTERS = ("bicubic", "lanczos", "adm", "box")
"""How pictures are resized: "bicubic", as clean-fid does [Parmar22]; "lanczos", as the tools of StyleGAN2-ADA and
StyleGAN3; "adm", as guided-diffusion: halved by means of four while twice as large or more, then bicubic. Bicubic and
Lanczos widen when they shrink, so that nothing aliases; means of four pass on a sixth of the finest patterns as false
ones. "box" is that of version 0.1.0: weights of 0 or 1, which distort coarse patterns too, and JPEGs decoded at a
fraction of their size before."""


def resize_short_side(
    image: UInt8[np.ndarray, "H W C"], size: int, method: str = FILTERS[0]
) -> UInt8[np.ndarray, "h w C"]:
    """The shorter side becomes `size` pixels, by one of FILTERS; enlarging is bicubic unless it is "lanczos".

    Raises:
        BrokenImage: if the other side becomes so long that there would be more than MAX_PIXELS pixels.
    """
    height, width = image.shape[:2]
    if min(height, width) == size:
        return image
    rows, columns = short_side_shape(height, width, size)
    return resize(image, rows, columns, method)


def short_side_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of a picture whose shorter side becomes `size` pixels.

    Raises:
        BrokenImage: if that would be more than MAX_PIXELS pixels.
    """
    short = min(height, width)
    shape = (max(size, round(height * size / short)), max(size, round(width * size / short)))
    if shape[0] * shape[1] > MAX_PIXELS:
        raise BrokenImage(f"{width}x{height} pixels, too narrow to become {shape[1]}x{shape[0]}")
    return shape


def cover(
    image: UInt8[np.ndarray, "H W C"], height: int, width: int, method: str = FILTERS[0]
) -> tuple[UInt8[np.ndarray, "{height} {width} C"], tuple[int, int]]:
    """The picture as large as it takes to fill that size, its middle, and how much of it is cut off before that, at the
    top and at the left."""
    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(least, round(side * scale)) for least, side in zip((height, width), image.shape, strict=False))
    top, left = (rows - height) // 2, (columns - width) // 2
    return resize(image, rows, columns, method)[top : top + height, left : left + width], (top, left)


def resize(
    image: UInt8[np.ndarray, "H W C"], height: int, width: int, method: str = FILTERS[0]
) -> UInt8[np.ndarray, "{height} {width} C"]:
    """The picture in another size, by one of FILTERS."""
    if image.shape[:2] == (height, width):
        return image
    channels = image.shape[-1]
    resized = np.array(_resized(Image.fromarray(image[..., 0] if channels == 1 else image), (width, height), method))
    return resized.reshape(height, width, channels)  # Pillow knows no [H W 1]


def _resized(image: Image.Image, shape: tuple[int, int], method: str) -> Image.Image:
    while method == "adm" and min(image.size) >= 2 * min(shape):
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if method == "box" and min(shape) < min(image.size):
        return image.resize(shape, Image.Resampling.BOX)
    return image.resize(shape, Image.Resampling.LANCZOS if method == "lanczos" else Image.Resampling.BICUBIC)


def crop(image: UInt8[np.ndarray, "H W C"], top: int, left: int, size: int) -> UInt8[np.ndarray, "size size C"]:
    """The square of `size` pixels whose first row and column are `top` and `left`."""
    return image[top : top + size, left : left + size]


def center_crop(image: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "size size C"]:
    """The middle square of `size` pixels, no larger than the image."""
    return crop(image, (image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size)


def random_crop(
    image: UInt8[np.ndarray, "H W C"], size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "size size C"]:
    """A square of `size` pixels, every place as likely; no larger than the image."""
    top = int(rng.integers(image.shape[0] - size + 1))
    left = int(rng.integers(image.shape[1] - size + 1))
    return crop(image, top, left, size)


def random_flip(image: UInt8[np.ndarray, "H W C"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W C"]:
    """Mirrored left to right, every second time."""
    return image[:, ::-1] if rng.integers(2) else image


def make_augment(crop_size: int, flip: bool) -> Transform | None:
    """Random crop to `crop_size` (0: none), then random flip; None where there is nothing to do."""
    if not crop_size and not flip:
        return None

    def augment(example, rng):
        image = example["image"]
        if crop_size:
            image = random_crop(image, crop_size, rng)
        if flip:
            image = random_flip(image, rng)
        return {**example, "image": image}

    return augment


def middle_square(image: UInt8[np.ndarray, "H W C"], size: int, filter: str) -> UInt8[np.ndarray, "size size C"]:
    """The middle square of a picture, `size` pixels a side."""
    return resize_short_side(center_crop(image, min(image.shape[:2])), size, filter)
