"""Emoji cut out of their files: what is white up to the edge becomes empty."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import ndimage

from flaxgen.data.decode import SUFFIXES, BrokenImage, DataError, decode_image
from flaxgen.data.files import read_regular
from flaxgen.scenes.emoji import NAMES

CODE = re.compile(r"(?:emoji_u)?([0-9a-f]{4,5})(?:[_-]fe0f)?\.\w+", re.IGNORECASE)
WHITE = 238
"""A pixel of which all levels are at least this is empty, if white all the way to the edge."""


def find_files(folder: str) -> dict[str, Path]:
    """The file of every name of NAMES.

    Raises:
        DataError: if the folder is not there, or has not all of them.
    """
    if not folder or not Path(folder).is_dir():
        asked = f"data.path {folder} is no folder" if folder else "data.path is not set"
        raise DataError(f"{asked}: give a folder of emoji such as Noto's 1f431.png with --set data.path=DIR")
    found = {}
    for path in sorted(Path(folder).iterdir()):
        matched = CODE.fullmatch(path.name)
        if matched and path.suffix.lower() in SUFFIXES and (name := NAMES.get(matched[1].lower())):
            found.setdefault(name, path)
    missing = {code: name for code, name in NAMES.items() if name not in found}
    if missing:
        code, name = next(iter(missing.items()))
        raise DataError(
            f"data.path {folder} lacks {len(missing)} of {len(NAMES)} emoji, such as {code}.png ({name}): give a "
            "folder with all of them"
        )
    return found


def cut_out(path: Path) -> Image.Image:
    """The emoji of a file, RGBA, square, without empty sides; what is white up to the edge becomes empty, and pixels
    beside it are taken for a mixture of white and their neighbour's colour.

    Raises:
        DataError: if the file is no picture, or shows nothing.
    """
    try:
        pixels = _without_white(decode_image(read_regular(path), 3).astype(np.float32))
    except (BrokenImage, OSError) as error:
        raise DataError(f"{path}: {error}") from error
    rows, columns = (np.flatnonzero((pixels[..., 3] > 8).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise DataError(f"{path} shows nothing but white: give an emoji on white, or on nothing")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    cut = Image.fromarray(pixels.round().astype(np.uint8)).crop(box)
    side = max(cut.size)
    square = Image.new("RGBA", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square


def _without_white(rgb: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 4"]:
    white = np.pad(rgb.min(-1) >= WHITE, 1, constant_values=True)
    labelled: Any = ndimage.label(white)
    empty = (labelled[0] == labelled[0][0, 0])[1:-1, 1:-1]
    inner: Any = ndimage.binary_erosion(~empty, iterations=2, border_value=1)
    solid = inner if inner.any() else ~empty
    nearest: Any = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    beside = ~empty & ~solid
    colour = rgb[tuple(nearest)]
    darkness, full = 255 - rgb.min(-1), np.maximum(255 - colour.min(-1), 1)
    share = np.clip(darkness / full, 0, 1)
    # where the neighbour is as light as the pixel, nothing is known of a mixture
    mixed = beside & (share < 1) & (full > 60) & ndimage.binary_dilation(empty, iterations=1)
    alpha = np.where(empty, 0, np.where(mixed, share, 1))
    return np.concatenate([np.where(mixed[..., None], colour, rgb), 255 * alpha[..., None]], -1)
