"""Edges of pictures, as hints for a ControlNet that was trained on such."""

import numpy as np
from jaxtyping import UInt8

STEP = 4.0
"""What Sobel's filter says of a step from black to white, where black is 0 and white 1."""


def edges(pixels: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W 3"]:
    """The norm of the gradient of a picture's brightness by Sobel's filter, black where nothing changes and white at a
    step from black to white."""
    x = np.pad(pixels.astype(np.float32).mean(-1) / 255, 1, "edge")
    rows = x[:-2] + 2 * x[1:-1] + x[2:]
    columns = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    norm = np.hypot(rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]) / STEP
    grey = np.rint(255 * np.minimum(norm, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
