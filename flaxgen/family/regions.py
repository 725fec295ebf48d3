"""Where a picture is drawn anew: a square window of it that a model draws at its own size, or a larger ground that it
is put on; and how what is drawn is put back."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from flaxgen.data.transforms import resize, resize_short_side
from flaxgen.train.config import require

HALF = 127
"""Levels of a mask above this one are free."""
RIM, LARGEST_SHIFT = 3, 16
"""Where the ground of what is drawn is compared with that of the picture: so many pixels on either side of the border;
and how many of 255 levels it may be off to be brought to it: what differs by more is meant to differ."""
MARGIN = 0.25
"""What a window shows beyond the marked part on each side, in shares of that part: what the new has to fit to."""


class Window(NamedTuple):
    """A square of a picture: its first row and column, and its side, in pixels."""

    top: int
    left: int
    side: int

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    def cut(self, image: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "size size C"]:
        """What the window shows, in `size` pixels."""
        return resize_short_side(image[self.place], size)

    def put(
        self,
        image: UInt8[np.ndarray, "H W C"],
        drawn: UInt8[np.ndarray, "N S S C"],
        free: Bool[np.ndarray, "H W 1"],
        feather: int,
    ) -> UInt8[np.ndarray, "N H W C"]:
        """The picture with what was drawn where it is `free`, its ground brought to the picture's, and the last
        `feather` pixels mixed; everywhere else nothing changes."""
        whole = np.repeat(image[None], len(drawn), 0)
        resized = np.stack([resize_short_side(one, self.side) for one in drawn])
        weight = feathered(free, feather)[self.place]
        whole[:, *self.place] = _mixed(image[self.place], resized, free[self.place], weight)
        return whole


class Ground(NamedTuple):
    """A picture on a larger ground. Free are the new parts and the last `feather` pixels of the picture, which fade
    into them; what the new parts hold mirrors the picture."""

    image: UInt8[np.ndarray, "H W C"]
    free: Bool[np.ndarray, "H W 1"]
    feather: int

    def cut(
        self, scale: float, height: int, width: int
    ) -> tuple[UInt8[np.ndarray, "h w C"], Bool[np.ndarray, "h w 1"]]:
        """It `scale` times as large, and what is free of it, in the upper left of so many pixels: the rest is free."""
        shown = self.fit(self.image, scale, height, width)
        free = self.fit(self.free.astype(np.uint8) * 255, scale, height, width) > HALF
        rows, columns = self._size(scale)
        free[rows:], free[:, columns:] = True, True
        return shown, free

    def fit(
        self, pixels: UInt8[np.ndarray, "H W C"], scale: float, height: int, width: int
    ) -> UInt8[np.ndarray, "h w C"]:
        """Another picture of the same size as `cut` has this one."""
        return fitted(pixels, self._size(scale), height, width)

    def put(self, drawn: UInt8[np.ndarray, "N h w C"], scale: float) -> UInt8[np.ndarray, "N H W C"]:
        """What was drawn of a `cut`, with the picture where it is not free."""
        rows, columns = self._size(scale)
        resized = np.stack([resize(one[:rows, :columns], *self.image.shape[:2]) for one in drawn])
        return _mixed(self.image, resized, self.free, feathered(self.free, self.feather))

    def _size(self, scale: float) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return max(round(height * scale), 1), max(round(width * scale), 1)


def ground(image: UInt8[np.ndarray, "H W C"], margins: tuple[int, int, int, int], feather: int) -> Ground:
    """The picture with so many pixels more at the left, right, top and bottom.

    Raises:
        ValueError: if all of the picture would fade.
    """
    left, right, top, bottom = margins
    height, width = image.shape[:2]
    free = np.ones((height + top + bottom, width + left + right, 1), bool)
    first, last = ([feather if margin else 0 for margin in sides] for sides in ((top, left), (bottom, right)))
    kept = [range(start, side - end) for start, side, end in zip(first, (height, width), last, strict=True)]
    require(all(kept), f"feather={feather}: nothing would stay of a picture of {width}x{height}, expected less")
    rows, columns = (slice(more + r.start, more + r.stop) for more, r in zip((top, left), kept, strict=True))
    free[rows, columns] = False
    return Ground(mirrored(image, top, bottom, left, right), free, feather)


def fitted(
    pixels: UInt8[np.ndarray, "H W C"], size: tuple[int, int], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} C"]:
    """A picture in another size, in the upper left of so many pixels: it is mirrored in the rest."""
    resized = resize(pixels, *size, "lanczos")
    return mirrored(resized, 0, height - size[0], 0, width - size[1])


def mirrored(
    image: UInt8[np.ndarray, "h w C"], top: int, bottom: int, left: int, right: int
) -> UInt8[np.ndarray, "H W C"]:
    """The picture with so many pixels more on each side, in which it is mirrored."""
    return np.pad(image, ((top, bottom), (left, right), (0, 0)), "symmetric")


def _mixed(
    image: UInt8[np.ndarray, "h w C"],
    drawn: UInt8[np.ndarray, "N h w C"],
    free: Bool[np.ndarray, "h w 1"],
    weight: Float[np.ndarray, "h w 1"],
) -> UInt8[np.ndarray, "N h w C"]:
    """Pictures in which what was drawn counts its `weight`, its ground brought to that of the picture."""
    moved = drawn.astype(np.float32)
    moved += np.stack([_shift(one, image, free)[None, None] for one in moved])
    return np.clip(np.round(image + weight * (moved - image)), 0, 255).astype(np.uint8)


def _shift(
    drawn: Float[np.ndarray, "h w C"], image: UInt8[np.ndarray, "h w C"], free: Bool[np.ndarray, "h w 1"]
) -> Float[np.ndarray, " C"]:
    """What brings the ground of `drawn` to that of the picture along the border of what is free: the difference of
    their medians, which no smaller thing on it moves; 0 where it is large, or there is no border."""
    from scipy.ndimage import binary_dilation, binary_erosion

    flat = free[..., 0]
    outer = np.asarray(binary_dilation(flat, iterations=RIM), bool) & ~flat
    inner = flat & ~np.asarray(binary_erosion(flat, iterations=RIM, border_value=1), bool)
    if not outer.any():
        return np.zeros(image.shape[-1], np.float32)
    shift = np.median(image[outer], 0) - np.median(drawn[inner], 0)
    return (shift if np.abs(shift).max() <= LARGEST_SHIFT else np.zeros_like(shift)).astype(np.float32)


def middle(free: Bool[np.ndarray, "H W 1"]) -> Window:
    """The middle square of a picture.

    Raises:
        ValueError: if nothing in it is free.
    """
    height, width = free.shape[:2]
    side = min(height, width)
    window = Window((height - side) // 2, (width - side) // 2, side)
    require(bool(free[window.place].any()), f"the mask marks nothing in the picture's middle square: {MARKED}")
    return window


def around(free: Bool[np.ndarray, "H W 1"], margin: float = MARGIN) -> Window:
    """The square that shows all that is free, and the picture around it.

    Raises:
        ValueError: if nothing is free, or what is free is longer than the picture's shorter side.
    """
    require(bool(free.any()), f"the mask marks nothing: {MARKED}")
    height, width = free.shape[:2]
    (top, bottom), (left, right) = (np.flatnonzero(free.any(axis=(axis, 2)))[[0, -1]] + (0, 1) for axis in (1, 0))
    longest, shorter = int(max(bottom - top, right - left)), min(height, width)
    require(
        longest <= shorter,
        f"the mask marks {longest} pixels in a row of a {width}x{height} picture: expected at most {shorter}, mark it "
        "in parts",
    )
    side = min(shorter, round(longest * (1 + 2 * margin)))
    return Window(_first(int(top + bottom), side, height), _first(int(left + right), side, width), side)


MARKED = "expected white where the picture is to be drawn anew"


def _first(middle_twice: int, side: int, length: int) -> int:
    """Where `side` pixels around a middle begin, none of them outside 0 ... length."""
    return int(np.clip((middle_twice - side) // 2, 0, length - side))


def feathered(free: Bool[np.ndarray, "H W 1"], pixels: int) -> Float[np.ndarray, "H W 1"]:
    """How much of what is drawn is taken: 1 inside, fading to 0 over the last `pixels` before what stays; the picture's
    own edge is no such border."""
    from scipy.ndimage import distance_transform_edt

    if not pixels or free.all():
        return free.astype(np.float32)
    distance: np.ndarray = np.asarray(distance_transform_edt(free[..., 0]))
    return np.clip(distance / (pixels + 1), 0, 1).astype(np.float32)[..., None]
