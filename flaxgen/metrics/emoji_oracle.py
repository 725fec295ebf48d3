"""Finds the things of an emoji picture, for a classifier to name: what differs from the ground, which is one colour or
goes evenly from one to another, is cut into as many as were asked for along their row."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from flaxgen.scenes.emoji import MARGIN, Row

DIFFERENT = 18
"""Levels that a pixel of a thing differs from the ground by, at least in one channel."""
SPECK = 0.0008
"""Pieces of a smaller share of the picture are noise."""
GAP = 0.02
"""The least distance of two things along their row, in shares of the side."""
FILL = 0.9
"""The share of a close-up's side that the thing has."""


def find_things(
    image: UInt8[np.ndarray, "H W 3"], count: int, upright: bool, size: int
) -> UInt8[np.ndarray, "{count} {size} {size} 3"] | None:
    """Close-ups of `count` things from left to right, or `upright` from top to bottom, brought to `size` pixels; None
    where there are not so many.

    The row is cut at the widest gaps: a thing of two pieces is one, unless they are farther apart than two things.

    Raises:
        ValueError: if the image is no square of 32 pixels or more.
    """
    side = len(image)
    if image.shape[1] != side or side < 32:
        raise ValueError(f"a picture of shape {image.shape}: expected a square of 32 pixels or more")
    standing = foreground(image)
    if not standing.any():
        return None
    occupied = np.asarray(standing.any(1 if upright else 0))
    parts = _cut(occupied, count, GAP * side)
    if parts is None:
        return None
    views = []
    for first, last in parts:
        own = np.zeros_like(standing)
        window = np.s_[first:last] if upright else np.s_[:, first:last]
        own[window] = standing[window]
        views.append(_closeup(image, own, size))
    return np.stack(views)


def names_in_order(row: Row) -> tuple[tuple[str, ...], bool]:
    """What stands in the row that a caption tells, from left to right or from top to bottom, and whether upright."""
    told = row.turned() if row.relation in ("right of", "below") else row
    return tuple(thing.name for thing in told.things), told.relation == "above"


def foreground(image: UInt8[np.ndarray, "S S 3"]) -> Bool[np.ndarray, "S S"]:
    """Where something stands: what differs from the ground that the picture's edge tells of."""
    side = len(image)
    away = np.abs(image.astype(np.float32) - _ground(image)).max(-1) >= DIFFERENT
    labelled: Any = ndimage.label(away, np.ones((3, 3)))
    areas = np.bincount(labelled[0].ravel())
    return (areas >= SPECK * side**2)[labelled[0]] & away


def _ground(image: UInt8[np.ndarray, "S S 3"]) -> Float[np.ndarray, "S S 3"]:
    """The plane nearest to the pixels of the edge, where nothing stands, by the least squares of those that fit it."""
    side = len(image)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    plane = np.stack([np.ones_like(x), x, y], -1)
    rim = np.ones((side, side), bool)
    width = max(1, int(MARGIN * side) - 1)
    rim[width:-width, width:-width] = False
    basis, levels = plane[rim], image[rim].astype(np.float32)
    fitting = np.ones(len(levels), bool)
    found = np.zeros((3, 3), np.float32)
    for _ in range(3):
        found = np.linalg.lstsq(basis[fitting], levels[fitting], rcond=None)[0]
        error = np.abs(levels - basis @ found).max(-1)
        fitting = error <= max(DIFFERENT / 2, float(np.median(error)))
    return plane @ found


def _cut(occupied: Bool[np.ndarray, " S"], count: int, least: float) -> list[tuple[int, int]] | None:
    """The stretches between the widest `count` - 1 gaps, if those are `least` pixels wide."""
    places = np.flatnonzero(occupied)
    gaps = np.diff(places) - 1
    widest = np.sort(np.argsort(gaps)[::-1][: count - 1])
    if len(widest) < count - 1 or any(gaps[gap] < least for gap in widest):
        return None
    firsts = [places[0], *(places[gap + 1] for gap in widest)]
    lasts = [*(places[gap] for gap in widest), places[-1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def _closeup(
    image: UInt8[np.ndarray, "S S 3"], own: Bool[np.ndarray, "S S"], size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The square around a thing, where the picture ends continued by its edge."""
    rows, columns = (np.flatnonzero(own.any(axis)) for axis in (1, 0))
    side = round(max(np.ptp(rows), np.ptp(columns)) / FILL) + 1
    top, left = (int(lines[0] + lines[-1] + 1 - side) // 2 + len(image) for lines in (rows, columns))
    padded = np.pad(image, [(len(image), len(image))] * 2 + [(0, 0)], mode="edge")
    cut = Image.fromarray(padded[top : top + side, left : left + side])
    return np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))
