"""Encoded pictures to uint8 arrays, with every odd kind either converted where that is right or refused."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from flaxgen.data.memory import Memory

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""The decoders that untrusted bytes may reach; Pillow has forty more."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
MAX_PIXELS = 64 * 2**20
"""Larger pictures are refused from their header: a 20 kB file can claim a gigabyte."""
BYTES_A_PIXEL = 22
"""What decoding takes at most: 18 of WebP, 21 in one reading of thirty, 16 of transparency and of 16 bits, 10 of RGB
in JPEG and PNG."""
MEMORY = Memory(2 * 2**30)
"""What decoding may take in all threads together: a picture of MAX_PIXELS, or eight photographs of 12 million."""
MAX_LABEL = 2**31 - 1
"""Labels are int32 in batches."""
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # raised where warnings are errors
)


class DataError(ValueError):
    """Data that cannot be used; the message is one line for the user."""


class BrokenImage(DataError):
    """One picture that cannot be used; a source skips and counts it."""


def decode_image(
    data: bytes,
    channels: int,
    short_side: int = 0,
    then: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    flatten: Callable[[Image.Image], Image.Image] | None = None,
) -> UInt8[np.ndarray, "H W C"]:
    """The first frame of a JPEG, PNG, WebP, GIF or BMP as uint8 with 1 or 3 `channels`, turned as its EXIF says.

    Transparency is laid over white, 16 bits are scaled to 8, CMYK and palettes become RGB; colour profiles are ignored.
    A JPEG far larger than `short_side` is decoded at a half, quarter or eighth, never below twice `short_side`.

    What `then` makes of it is returned, such as a smaller picture. Until that is done the memory that a picture of its
    size takes is held of MEMORY, which all threads share: others wait. `flatten` makes the image grey or RGB.

    Raises:
        BrokenImage: if it is truncated, of another format, or of more than MAX_PIXELS pixels; and what `then` raises.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BrokenImage(f"{width}x{height} pixels, more than the {MAX_PIXELS} allowed")
            if short_side:
                image.draft(None, (2 * short_side, 2 * short_side))  # does nothing unless JPEG
            with MEMORY.hold(image.width * image.height * BYTES_A_PIXEL):
                return then(_loaded(image, channels, flatten or _flatten))
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage(f"not one of {', '.join(FORMATS)}") from error
    except _PILLOW_ERRORS as error:
        raise BrokenImage(_one_line(error)) from error


def decode_mask(data: bytes) -> UInt8[np.ndarray, "H W 1"]:
    """White where a picture marks what is to be drawn anew: where it is transparent, if it is so anywhere, as the API
    of DALL-E 2 has it, and else where it is white.

    Raises:
        BrokenImage: as `decode_image`.
    """
    return decode_image(data, 1, flatten=_marked)


def _marked(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if np.asarray(alpha).min() < 255:
            return ImageOps.invert(alpha)
    return _flatten(image)


def _loaded(image: Image.Image, channels: int, flatten: Callable) -> UInt8[np.ndarray, "H W C"]:
    """The pixels; the image gives back its own."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    pixels = to_channels(flatten(image), channels)
    image.close()
    return pixels


def to_channels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """An RGB or grey Pillow image as an array with 1 (ITU-R 601 luma) or 3 channels."""
    mode = {1: "L", 3: "RGB"}[channels]
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def _flatten(image: Image.Image) -> Image.Image:
    """As grey or RGB, 8 bits, opaque."""
    if image.mode.startswith("I"):  # 16-bit grey; 16-bit RGB arrives as 8 bits
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
