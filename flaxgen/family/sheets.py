"""Arrays as one picture: grids of images, plots of points, films."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from flaxgen.data import to_pixels

Picture: TypeAlias = UInt8[np.ndarray, "_ _ 3"]

SMALLEST_SIDE = 64
"""Images whose shorter side is below this are enlarged by a whole factor, so that a grid of 8 x 8 digits can be looked
at; the longer side stays below four times as many pixels."""


CAPTION_SIZE = 12
"""Pixels of a caption's letters."""
BINS = 60
"""Of a histogram."""


def grid(images: Shaped[np.ndarray, "N H W C"], columns: int | None = None, gap: int = 2) -> Picture:
    """One picture of N images, uint8 or float in [-1, 1], row by row with white gaps; about square by default."""
    pixels = images if images.dtype == np.uint8 else to_pixels(images)
    count, height, width, channels = pixels.shape
    pixels = np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels
    scale = max(1, min(SMALLEST_SIDE // min(height, width), 4 * SMALLEST_SIDE // max(height, width)))
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
    parts = []
    for caption, row in zip(captions, rows, strict=True):
        if (font := font_for(caption)) is not None:
            strip = Image.new("RGB", (row.shape[1], 2 * CAPTION_SIZE), "white")
            ImageDraw.Draw(strip).text((gap, CAPTION_SIZE // 2), caption, "black", font)
            parts.append(np.asarray(strip))
        parts.append(row)
    return np.concatenate(parts)


def font_for(text: str) -> ImageFont.FreeTypeFont | None:
    """A font at hand that has every letter of the text; None where there is none."""
    for path in (None, matplotlib_font()):
        font = ImageFont.load_default(CAPTION_SIZE) if path is None else ImageFont.truetype(path, CAPTION_SIZE)
        if isinstance(font, ImageFont.FreeTypeFont) and _has_letters(font, text):
            return font
    return None


def matplotlib_font() -> Path:
    """DejaVu Sans, which comes with matplotlib and has the letters of many scripts."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def _has_letters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether no letter of it is drawn as the box that stands for a missing one."""
    box: Any = font.getmask("\uffff")
    missing = (box.size, bytes(box))
    shown: list[Any] = [font.getmask(letter) for letter in {*text} if not letter.isspace()]
    return all((mask.size, bytes(mask)) != missing for mask in shown)


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
    def panel(axes):
        plot(axes)
        axes.legend(loc="upper right")

    return plotted([panel], side=5.0)


def plotted(panels: Sequence[Callable[[Any], None]], side: float) -> Picture:
    """Plots next to each other, each drawn by a function of matplotlib's axes, `side` times 100 pixels a side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side * len(panels), side), dpi=100, layout="tight")
    for i, panel in enumerate(panels):
        panel(figure.add_subplot(1, len(panels), i + 1))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_gif(path: Path, frames: Shaped[np.ndarray, "N H W C"], per_second: float) -> None:
    """Writes pictures as a film that starts again at its end; see `grid` for their values and sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(grid(frame[None], gap=0)) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / per_second), loop=0)
