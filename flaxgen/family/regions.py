"""Where a picture is drawn anew: a square window of it that a model draws at its own size, and how it is put back."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from flaxgen.data.transforms import crop, resize_short_side
from flaxgen.train.config import require

MARGIN = 0.25
"""What a window shows beyond the marked part on each side, in shares of that part: what the new has to fit to."""


class Window(NamedTuple):
    """A square of a picture: its first row and column, and its side, in pixels."""

    top: int
    left: int
    side: int

    def cut(self, image: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "size size C"]:
        """What the window shows, in `size` pixels."""
        return resize_short_side(crop(image, *self), size)

    def put(
        self,
        image: UInt8[np.ndarray, "H W C"],
        drawn: UInt8[np.ndarray, "N S S C"],
        weight: Float[np.ndarray, "H W 1"],
    ) -> UInt8[np.ndarray, "N H W C"]:
        """The picture with what was drawn in its place, as far as `weight` in [0, 1] goes: where it is 0 nothing
        changes."""
        whole = np.repeat(image[None], len(drawn), 0)
        resized = np.stack([resize_short_side(one, self.side) for one in drawn])
        rows, columns = (slice(first, first + self.side) for first in (self.top, self.left))
        share, before = weight[rows, columns], whole[:, rows, columns]
        mixed = np.round(before + share * (resized.astype(np.float32) - before)).astype(np.uint8)
        whole[:, rows, columns] = mixed
        return whole


def middle(free: Bool[np.ndarray, "H W 1"]) -> Window:
    """The middle square of a picture.

    Raises:
        ValueError: if nothing in it is free.
    """
    height, width = free.shape[:2]
    side = min(height, width)
    window = Window((height - side) // 2, (width - side) // 2, side)
    require(bool(crop(free, *window).any()), f"the mask marks nothing in the picture's middle square: {MARKED}")
    return window


def around(free: Bool[np.ndarray, "H W 1"], margin: float = MARGIN) -> Window:
    """The square that shows all that is free, and the picture around it.

    Raises:
        ValueError: if nothing is free, or what is free is longer than the picture's shorter side.
    """
    require(bool(free.any()), f"the mask marks nothing: {MARKED}")
    height, width = free.shape[:2]
    (top, bottom), (left, right) = (np.flatnonzero(free.any(axis=(axis, 2)))[[0, -1]] + (0, 1) for axis in (1, 0))
    longest, shorter = max(bottom - top, right - left), min(height, width)
    require(
        longest <= shorter,
        f"the mask marks {longest} pixels in a row of a {width}x{height} picture: expected at most {shorter}, mark it "
        "in parts",
    )
    side = min(shorter, round(longest * (1 + 2 * margin)))
    return Window(_first(top, bottom, side, height), _first(left, right, side, width), side)


MARKED = "expected white where the picture is to be drawn anew"


def _first(start: int, end: int, side: int, length: int) -> int:
    """Where `side` pixels around start ... end begin, none of them outside 0 ... length."""
    return int(np.clip((start + end - side) // 2, 0, length - side))


def feathered(free: Bool[np.ndarray, "H W 1"], pixels: int) -> Float[np.ndarray, "H W 1"]:
    """How much of what is drawn is taken: 1 inside, fading to 0 over the last `pixels` before what stays; the picture's
    own edge is no such border."""
    from scipy.ndimage import distance_transform_edt  # a tenth of a second, and JAX needs scipy anyway

    if not pixels or free.all():
        return free.astype(np.float32)
    distance: np.ndarray = np.asarray(distance_transform_edt(free[..., 0]))
    return np.clip(distance / (pixels + 1), 0, 1).astype(np.float32)[..., None]
