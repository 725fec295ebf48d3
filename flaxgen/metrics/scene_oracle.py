"""Reads the pictures of scenes without learning: which objects there are, where, and whether a caption holds.

What differs from the ground is cut into pieces; a piece's colour is the direction in which it differs, and its shape
the one whose drawing, at the place and of the area of the piece, comes closest.
"""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from flaxgen.scenes.captions import Description, Thing, direction, parse
from flaxgen.scenes.shapes import COLOURS, LARGE, SHAPES, SMALL, coverage

READ_SIZE = 64
"""Larger pictures are read at this size, in pixels: it is enough, and averages the noise."""
DARKEST_GROUND = 180
FOREGROUND = 0.45
"""Least share of a pixel that is an object's for it to be foreground."""
SPECK = 0.006
"""Pieces of a smaller share of the picture are no objects; the smallest object has 0.023."""
MIXED = 0.25
"""A piece of which this share or more has another colour than most of it is cut up by colour."""
MOST_OFF_COLOUR, MOST_MISFIT = 0.75, 0.12
"""How far a piece may be from the nearest colour, in shares of that colour's own distance from grey, and from the best
drawing, as the squared error in shares of its area, to be named."""
BETWEEN_SIZES = (SMALL[1] * LARGE[0]) ** 0.5
SMALLEST, LARGEST = 0.75 * SMALL[0], 1.25 * LARGE[1]
FAINT = 0.08
"""A smaller share of a pixel is taken for noise."""
BLURS = 3
"""How many softnesses of the drawn shapes are tried."""


class Found(NamedTuple):
    """An object in a picture. `colour`, `shape` and `size` are "" where it is none that is known; `x`, `y` (down) and
    `radius` are in shares of the side."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float


MIDDLE = Found("", "", "", 0.5, 0.5, 0.0)
"""What a single thing is left of, right of, above or below."""


def read(image: UInt8[np.ndarray, "H W 3"]) -> tuple[Found, ...]:
    """The objects of a square picture, none where it is no scene on a light ground.

    Raises:
        ValueError: if the image is not uint8 [S S 3] of 16 pixels or more.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not 16 <= image.shape[0] == image.shape[1]:
        raise ValueError(f"the oracle reads uint8 [S S 3] of S >= 16, got {image.dtype} {image.shape}")
    if len(image) > READ_SIZE:
        image = np.asarray(Image.fromarray(image).resize((READ_SIZE, READ_SIZE), Image.Resampling.BOX))
    pixels = image.astype(np.float32)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    if ground.min() < DARKEST_GROUND:
        return ()
    pixels -= ground
    axes = np.array(list(COLOURS.values()), np.float32) - ground
    pieces = _pieces(pixels, axes)
    return tuple(_identify(pixels, axes, pieces, number) for number in range(1, pieces.max() + 1))


def holds(image: UInt8[np.ndarray, "H W 3"], caption: str) -> bool:
    """Whether the picture shows exactly what the caption says, and nothing else.

    Raises:
        ValueError: if the caption is not about scenes, or the image is not uint8 [S S 3].
    """
    return arrange(read(image), parse(caption)) is not None


def arrange(found: tuple[Found, ...], description: Description) -> tuple[Found, ...] | None:
    """These objects in the description's order; None unless they are all of it, where it says, and nothing else."""
    if len(found) != len(description.things):
        return None
    for order in permutations(found):
        if all(_is(one, thing) for one, thing in zip(order, description.things, strict=True)) and (
            description.relation is None or relation(*(*order, MIDDLE)[:2]) == description.relation
        ):
            return order
    return None


def relation(first: Found, second: Found) -> str:
    """Where the first is from the second: "left of", "right of", "above" or "below", by the larger difference."""
    return direction(first.x - second.x, first.y - second.y)


def accuracy(images: Sequence[np.ndarray] | np.ndarray, captions: Sequence[str]) -> float:
    """Share of the pictures, uint8 [S S 3] each, whose own caption holds.

    Raises:
        ValueError: if there are none, not as many captions as pictures, or what `holds` refuses.
    """
    if not len(images) or len(images) != len(captions):
        raise ValueError(f"accuracy needs a caption a picture, got {len(images)} pictures and {len(captions)} captions")
    return sum(holds(image, caption) for image, caption in zip(images, captions, strict=True)) / len(images)


def spread(images: Sequence[np.ndarray] | np.ndarray, caption: str) -> float:
    """How differently pictures of one caption place its things: the root mean square distance of a thing from its mean
    position, in shares of the side, over the pictures that the caption holds of; nan where it is fewer than two.

    Raises:
        ValueError: what `holds` refuses.
    """
    description = parse(caption)
    arranged = [order for image in images if (order := arrange(read(image), description)) is not None]
    if len(arranged) < 2:
        return math.nan
    places = np.array([[(one.x, one.y) for one in order] for order in arranged])
    return float(np.sqrt(((places - places.mean(axis=0, keepdims=True)) ** 2).sum(axis=2).mean()))


def _is(found: Found, thing: Thing) -> bool:
    return (found.colour, found.shape) == (thing.colour, thing.shape) and found.size in (
        (thing.size,) if thing.size else ("small", "large")
    )


def _pieces(pixels: Float[np.ndarray, "s s 3"], axes: Float[np.ndarray, "colours 3"]) -> Int[np.ndarray, "s s"]:
    """Number of the piece that each pixel belongs to, from 1 on; 0 on the ground and in specks."""
    lengths = np.linalg.norm(axes, axis=1)
    along = pixels @ (axes / lengths[:, None]).T
    colour = along.argmax(axis=2)
    strength = np.take_along_axis(along, colour[..., None], axis=2)[..., 0] / lengths[colour]
    numbers, count = np.zeros(colour.shape, int), 0
    for piece in _connected(strength > FOREGROUND):
        shares = np.bincount(colour[piece]) / piece.sum()
        parts = [piece]
        if shares.max() <= 1 - MIXED:
            parts = [part for k in range(len(axes)) for part in _connected(piece & (colour == k))]
        for part in parts:
            count += 1
            numbers[part] = count
    return numbers


def _connected(mask: Bool[np.ndarray, "s s"]) -> list[Bool[np.ndarray, "s s"]]:
    """The connected parts of a mask, corners included, without specks."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    # runs of two neighbouring rows touch where neither begins past the other's end
    touch = np.abs(rows[:, None] - rows) == 1
    touch &= (starts[:, None] <= ends) & (starts <= ends[:, None])
    one, other = np.nonzero(touch)
    label = np.arange(len(rows))
    while True:
        lower = label.copy()
        np.minimum.at(lower, one, label[other])
        lower = lower[lower]
        if np.array_equal(lower, label):
            break
        label = lower
    labels = np.full(mask.shape, -1)
    labels[mask] = np.repeat(label, ends - starts)
    areas = np.bincount(labels[mask], minlength=1)
    return [labels == root for root in np.flatnonzero(areas >= SPECK * mask.size)]


def _identify(
    pixels: Float[np.ndarray, "s s 3"],
    axes: Float[np.ndarray, "colours 3"],
    pieces: Int[np.ndarray, "s s"],
    number: int,
) -> Found:
    """What piece `number` is."""
    size = len(pixels)
    window = _window(pieces == number)
    here, near = pixels[window], pieces[window]
    colour, axis = _colour(here[near == number], axes)
    share = here @ (axis / (axis @ axis))
    share[(share < FAINT) | _grown((near != number) & (near != 0))] = 0
    columns, rows = ((np.arange(part.start, part.stop) + 0.5) / size for part in reversed(window))
    shape, x, y, radius = _fit(share, columns, rows, size)
    size_word = "" if not SMALLEST < radius < LARGEST else "small" if radius < BETWEEN_SIZES else "large"
    return Found(colour, shape, size_word, x, y, radius)


def _fit(
    share: Float[np.ndarray, "h w"], columns: Float[np.ndarray, " w"], rows: Float[np.ndarray, " h"], size: int
) -> tuple[str, float, float, float]:
    """Shape, position and radius. Every shape is drawn with the centroid and the area of what is seen, which no blur
    changes, and more and more softly."""
    area = share.sum()
    x, y = float(share.sum(axis=0) @ columns / area), float(share.sum(axis=1) @ rows / area)
    blur_rows, blur_columns = _blur(len(rows)), _blur(len(columns))
    best, least, radius = "", MOST_MISFIT, float(area / np.pi) ** 0.5 / size
    for name, shape in SHAPES.items():
        r = float(area / shape.area) ** 0.5 / size
        drawn = coverage(name, (columns[None, :] - x) / r, (rows[:, None] - y) / r + shape.centroid, r * size)
        for _ in range(BLURS):
            misfit = float(((drawn - share) ** 2).sum() / area)
            if misfit < least:
                best, least, radius = name, misfit, r
            drawn = blur_rows @ drawn @ blur_columns
    return best, x, y - SHAPES[best].centroid * radius if best else y, radius


def _window(piece: Bool[np.ndarray, "s s"]) -> tuple[slice, slice]:
    """The piece's bounding box, and its soft edge."""
    edge = 1 + len(piece) // 32
    lines = (np.flatnonzero(piece.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, at[0] - edge), min(len(piece), at[-1] + 1 + edge)) for at in lines)
    return rows, columns


def _colour(inside: Float[np.ndarray, "N 3"], axes: Float[np.ndarray, "colours 3"]) -> tuple[str, np.ndarray]:
    """The colour of a piece, and how its pixels differ from the ground: the mean of the quarter that differs most."""
    strength = (inside**2).sum(axis=1)
    axis = inside[strength >= np.quantile(strength, 0.75)].mean(axis=0)
    nearest = (axes @ axis / np.linalg.norm(axes, axis=1)).argmax()
    # lightness aside, so that black, white and grey are no colours
    hue, expected = axis - axis.mean(), axes[nearest] - axes[nearest].mean()
    known = np.linalg.norm(hue - expected) < MOST_OFF_COLOUR * np.linalg.norm(expected)
    return tuple(COLOURS)[nearest] if known else "", axis


def _blur(size: int) -> Float[np.ndarray, "size size"]:
    """[1 2 1] / 4 along one axis, as a matrix."""
    return np.eye(size) / 2 + (np.eye(size, k=1) + np.eye(size, k=-1)) / 4


def _grown(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask and the pixels beside it."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
