"""Samples as one picture: grids of images, plots of points, and PNG files that know how they were made."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

Picture: TypeAlias = UInt8[np.ndarray, "_ _ 3"]

SMALLEST_SIDE = 64
"""Images smaller than this are enlarged by a whole factor, so that a grid of 8 x 8 digits can be looked at."""


CAPTION_SIZE = 12
"""Pixels of a caption's letters."""
BINS = 60
"""Of a histogram."""


def grid(images: Shaped[np.ndarray, "N H W C"], columns: int | None = None, gap: int = 2) -> Picture:
    """One picture of N images, uint8 or float in [-1, 1], row by row with white gaps; about square by default."""
    pixels = images if images.dtype == np.uint8 else to_pixels(images)
    count, height, width, channels = pixels.shape
    pixels = np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels
    scale = max(1, SMALLEST_SIDE // max(height, width))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    columns = columns or math.ceil(math.sqrt(count))
    rows, (height, width) = math.ceil(count / columns), pixels.shape[1:3]
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = (gap + n * (size + gap) for n, size in zip(divmod(i, columns), (height, width), strict=True))
        canvas[top : top + height, left : left + width] = image
    return canvas


def captioned(images: UInt8[np.ndarray, "N H W 3"], captions: Sequence[str], gap: int = 2) -> Picture:
    """A row for each caption, with as many of the images as fall to it; the caption stands above."""
    rows = [grid(part, columns=len(part), gap=gap) for part in np.split(images, len(captions))]
    width, font = rows[0].shape[1], ImageFont.load_default(CAPTION_SIZE)
    parts = []
    for caption, row in zip(captions, rows, strict=True):
        strip = Image.new("RGB", (width, 2 * CAPTION_SIZE), "white")
        ImageDraw.Draw(strip).text((gap, CAPTION_SIZE // 2), caption, "black", font)
        parts += [np.asarray(strip), row]
    return np.concatenate(parts)


def to_pixels(images: Float[np.ndarray, "*any"]) -> UInt8[np.ndarray, "*any"]:
    """[-1, 1] to 0..255, rounded; what lies outside is clipped."""
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)


def beside(left: Picture, right: Picture, gap: int = 24) -> Picture:
    """Two pictures next to each other, aligned at the top."""
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    return canvas


def histogram(drawn: Float[np.ndarray, "N 1"], real: Float[np.ndarray, "M 1"] | None = None) -> Picture:
    """Densities of drawn numbers over those of real ones."""
    sets = [("real", "0.8", real)] if real is not None else []
    sets.append(("drawn", "tab:blue", drawn))
    edges = np.histogram_bin_edges(np.concatenate([numbers for *_, numbers in sets]), BINS)

    def plot(axes):
        for label, color, numbers in sets:
            kind = "step" if label == "drawn" else "stepfilled"
            axes.hist(numbers[:, 0], edges, density=True, histtype=kind, color=color, label=label)

    return _plotted(plot)


def scatter(drawn: Float[np.ndarray, "N 2"], real: Float[np.ndarray, "M 2"] | None = None) -> Picture:
    """Drawn points over real ones."""

    def plot(axes):
        if real is not None:
            axes.scatter(*real.T, s=3, color="0.8", label="real")
        axes.scatter(*drawn.T, s=3, color="tab:blue", label="drawn")
        axes.set_aspect("equal")

    return _plotted(plot)


def _plotted(plot: Callable[[Any], None]) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=100, layout="tight")
    axes = figure.add_subplot()
    plot(axes)
    axes.legend(loc="upper right")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw(samples: Shaped[np.ndarray, "N *rest"], real: np.ndarray | None = None) -> Picture:
    """Images as a grid (real ones beside them), points as a scatter plot and numbers as a histogram (over the real
    ones)."""
    if samples.ndim == 2:
        return histogram(samples, real) if samples.shape[1] == 1 else scatter(samples, real)
    picture = grid(samples)
    return picture if real is None else beside(picture, grid(real))


def save(
    path: Path, samples: Shaped[np.ndarray, "N *rest"], real: np.ndarray | None, about: Mapping[str, object]
) -> None:
    """Writes samples as the arrays themselves (.npz, field `samples`) or as one picture (.png, `about` as its text).

    Raises:
        ValueError: for another suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez_compressed(path, samples=samples)
    elif path.suffix == ".png":
        save_png(path, draw(samples, real), about)
    else:
        raise ValueError(f"--out {path}: expected a name that ends in .png or .npz")


def save_png(path: Path, picture: Picture, about: Mapping[str, object]) -> None:
    """Writes one picture, with `about` as its text."""
    text = PngInfo()
    for key, value in about.items():
        text.add_text(key, str(value).encode("utf-8", "replace").decode())  # what a shell gave may be no text
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, pnginfo=text)


def save_gif(path: Path, frames: Shaped[np.ndarray, "N H W C"], per_second: float) -> None:
    """Writes pictures as a film that starts again at its end; see `grid` for their values and sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(grid(frame[None], gap=0)) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / per_second), loop=0)
