"""Pictures that others send: decoded within bounds and written anew, so that nothing but pixels is kept of them."""

import io

import numpy as np
from PIL import Image

from flaxgen.data.decode import decode_image
from flaxgen.family.pictures import ABOUT, DESCRIPTION

TYPES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Content types that are taken, and the one decoder that each may reach."""
LARGEST_TEXT = 2**20
"""Characters of a picture's own text that are read."""


class Refused(ValueError):
    """A picture that is not taken; the message is for whoever sent it."""


def reencode(content: bytes, kind: str, most: int) -> tuple[bytes, int, int]:
    """A picture of that content type as a new PNG file of its pixels, its width and height; what is transparent stays
    so, as masks mark with it. `most` is the number of pixels it may have.

    Raises:
        Refused: if it is something else, is damaged, moves, or is too large.
    """
    formats = [TYPES[kind]]
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            (width, height), frames = image.size, getattr(image, "n_frames", 1)
            transparent = image.has_transparency_data
    except Exception as error:  # Pillow raises of every kind where a file is damaged
        raise Refused(f"the picture is no {formats[0]} that can be read") from error
    if width * height > most:
        raise Refused(f"the picture has {width}x{height} pixels: expected at most {most:,} in all")
    if frames != 1:
        raise Refused(f"the picture has {frames} frames: expected one")
    try:
        pixels = decode_image(content, 3, flatten=_opaque if transparent else None)
        if transparent:
            pixels = np.concatenate([pixels, decode_image(content, 1, flatten=_alpha)], -1)
    except ValueError as error:
        raise Refused(f"the picture cannot be read: {error}") from error
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), pixels.shape[1], pixels.shape[0]


def _opaque(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").convert("RGB")


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def read_text(content: bytes, most: int) -> str:
    """What a picture says of itself where flaxgen writes that; "" where it says nothing.

    Raises:
        Refused: if it is no picture, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=list(TYPES.values())) as image:
            if image.width * image.height > most:
                raise Refused(f"the picture has {image.width}x{image.height} pixels: expected at most {most:,} in all")
            text = image.info.get(ABOUT) or image.getexif().get(DESCRIPTION, "")
    except Refused:
        raise
    except Exception as error:
        raise Refused("the picture is no PNG, JPEG or WEBP that can be read") from error
    return text[:LARGEST_TEXT] if isinstance(text, str) else ""
