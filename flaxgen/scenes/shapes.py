"""What a circle, a square, a triangle, a cross and a ring are, in numbers, and the colours they come in.

Positions and radii are in shares of the picture's side, x to the right and y down; a shape's position is the middle of
its bounding box, and its shape functions are for radius 1 around the origin.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (222, 36, 40),
    "green": (44, 160, 60),
    "blue": (32, 64, 220),
    "yellow": (242, 204, 32),
    "purple": (150, 44, 176),
    "cyan": (36, 196, 216),
}
SMALL, LARGE = (0.10, 0.13), (0.17, 0.21)
"""The radii of each size; what lies between is neither."""


class Shape(NamedTuple):
    """Half the bounding box, the area, and how far the centroid lies below the middle of the bounding box."""

    half_width: float
    half_height: float
    area: float
    centroid: float = 0.0


SQUARE, ARM, HOLE = 0.88, 0.36, 0.5
TRIANGLE_WIDTH, TRIANGLE_HEIGHT = 0.6 * 3**0.5, 0.9
SHAPES: Mapping[str, Shape] = {
    "circle": Shape(1, 1, np.pi),
    "square": Shape(SQUARE, SQUARE, 4 * SQUARE**2),
    "triangle": Shape(TRIANGLE_WIDTH, TRIANGLE_HEIGHT, 2 * TRIANGLE_WIDTH * TRIANGLE_HEIGHT, TRIANGLE_HEIGHT / 3),
    "cross": Shape(1, 1, 4 * ARM * (2 - ARM)),
    "ring": Shape(1, 1, np.pi * (1 - HOLE**2)),
}


def distance(shape: str, x: Float[np.ndarray, "1 W"], y: Float[np.ndarray, "H 1"]) -> Float[np.ndarray, "H W"]:
    """From the outline of the shape of radius 1, negative inside; near the outline it is the distance, but for
    corners."""
    if shape == "circle":
        return np.hypot(x, y) - 1
    if shape == "ring":
        return np.abs(np.hypot(x, y) - (1 + HOLE) / 2) - (1 - HOLE) / 2
    x = np.abs(x)
    if shape == "triangle":  # equilateral, a corner up
        return np.maximum(y - TRIANGLE_HEIGHT, 3**0.5 / 2 * x - (y + TRIANGLE_HEIGHT) / 2)
    y = np.abs(y)
    if shape == "square":
        return np.maximum(x, y) - SQUARE
    return np.maximum(np.minimum(x, y) - ARM, np.maximum(x, y) - 1)


class Patch(NamedTuple):
    """Part of a picture: its first row and column, and how much of each of its pixels the shape covers."""

    top: int
    left: int
    coverage: Float[np.ndarray, "h w"]


def rasterise(shape: str, x: float, y: float, radius: float, size: int) -> Patch:
    """The shape in a picture of `size` pixels, antialiased, cut to its bounding box and to the picture."""
    half_width, half_height = SHAPES[shape].half_width * radius, SHAPES[shape].half_height * radius
    left, right = _pixels(x, half_width, size)
    top, bottom = _pixels(y, half_height, size)
    columns = ((np.arange(left, right) + 0.5) / size - x) / radius
    rows = ((np.arange(top, bottom) + 0.5) / size - y) / radius
    return Patch(top, left, coverage(shape, columns[None, :], rows[:, None], radius * size))


def coverage(
    shape: str, x: Float[np.ndarray, "1 W"], y: Float[np.ndarray, "H 1"], scale: float
) -> Float[np.ndarray, "H W"]:
    """How much of pixels at (x, y), where the shape has radius 1, it covers; the soft edge is 1 / `scale` wide."""
    depth = distance(shape, x, y)
    depth *= -scale
    depth += 0.5
    return np.clip(depth, 0, 1, out=depth)


def _pixels(middle: float, half: float, size: int) -> tuple[int, int]:
    """First pixel and one past the last of the stretch, with room for the soft edge."""
    return max(0, int((middle - half) * size - 0.5)), min(size, int((middle + half) * size + 1.5))
