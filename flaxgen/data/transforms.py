"""What happens to a picture between its file and the net: pure functions of an array and, where random, a generator."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Transform: TypeAlias = Callable[[Mapping[str, Any], np.random.Generator], Mapping[str, Any]]
"""A random change of one example; it draws from the generator and from nothing else."""


def resize_short_side(image: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "h w C"]:
    """The shorter side becomes `size` pixels: area average (box) when shrinking, bicubic when enlarging."""
    height, width, channels = image.shape
    short = min(height, width)
    if short == size:
        return image
    shape = (max(size, round(width * size / short)), max(size, round(height * size / short)))
    method = Image.Resampling.BOX if size < short else Image.Resampling.BICUBIC
    # Pillow knows no [H W 1]
    resized = np.array(Image.fromarray(image[..., 0] if channels == 1 else image).resize(shape, method))
    return resized.reshape(*resized.shape[:2], channels)


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
