"""A folder of stand-ins for the emoji: a coloured shape on white for each code point."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from flaxgen.scenes.emoji import NAMES

SIDE = 40


def write_emoji(folder: Path) -> Path:
    """The folder, with a file for each of NAMES: a bar of its own colour in a frame, with a white hole."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, code in enumerate(NAMES):
        image = Image.new("RGB", (SIDE, SIDE), "white")
        colour = (40 + number % 6 * 30, 30 + number // 6 % 6 * 30, 20 + number // 36 * 40)
        draw = ImageDraw.Draw(image)
        draw.rectangle((8, 4, 31, 35), fill=colour)
        draw.rectangle((16, 12, 23, 19), fill="white")
        image.save(folder / f"{code}.png")
    return folder


def is_ground(pixels: np.ndarray) -> np.ndarray:
    """Where nothing stands, of pixels [H W 3]: grounds are light, the stand-ins are not."""
    return pixels.min(-1) >= 170
