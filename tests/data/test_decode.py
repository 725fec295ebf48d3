"""Every odd kind of picture, against colours that can be worked out by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import decode
from flaxgen.data.decode import BrokenImage, decode_image, decode_mask

RED, GREEN = (250, 10, 20), (10, 240, 30)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def two_halves() -> Image.Image:
    """4 wide, 6 high: the upper half red, the lower green."""
    image = Image.new("RGB", (4, 6), GREEN)
    image.paste(RED, (0, 0, 4, 3))
    return image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_lossless_formats_come_back_exactly(kind):
    pixels = decode_image(encoded(two_halves(), kind, **({"lossless": True} if kind == "WEBP" else {})), channels=3)
    np.testing.assert_array_equal(pixels, np.asarray(two_halves()))


def test_jpeg_is_close():
    pixels = decode_image(encoded(two_halves().resize((32, 48), Image.Resampling.NEAREST), "JPEG", quality=95), 3)
    assert np.abs(pixels[:16].astype(int) - RED).max() < 12


def test_grey_becomes_three_equal_channels_and_colour_becomes_luma():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(grey)), 3), np.repeat(grey[..., None], 3, axis=-1)
    )
    luma = decode_image(encoded(Image.new("RGB", (2, 2), RED)), 1)
    assert luma.shape == (2, 2, 1)
    np.testing.assert_allclose(luma, 0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2], atol=1)


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparency_lies_on_white(alpha):
    pixels = decode_image(encoded(Image.new("RGBA", (2, 2), (*RED, alpha))), 3)
    mixed = np.array(RED) * alpha / 255 + 255 * (1 - alpha / 255)
    np.testing.assert_allclose(pixels, np.broadcast_to(mixed, (2, 2, 3)), atol=1)


def test_grey_with_alpha_lies_on_white():
    np.testing.assert_allclose(decode_image(encoded(Image.new("LA", (2, 2), (0, 51))), 1), 204, atol=1)


def test_palette_with_a_transparent_entry():
    image = two_halves().quantize(2)
    transparent = int(np.asarray(image)[0, 0])
    pixels = decode_image(encoded(image, "PNG", transparency=transparent), 3)
    np.testing.assert_array_equal(pixels[0, 0], (255, 255, 255))
    np.testing.assert_allclose(pixels[5, 0], GREEN, atol=1)


def test_black_and_white():
    image = Image.new("1", (2, 2), 1)
    image.putpixel((0, 0), 0)
    np.testing.assert_array_equal(decode_image(encoded(image), 1)[..., 0], [[0, 255], [255, 255]])


def test_sixteen_bits_are_scaled_to_eight():
    deep = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(deep)), 1)[0, :, 0], [0, 1, 128, 255])


def test_cmyk_jpeg_becomes_rgb():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    pixels = decode_image(encoded(image, "JPEG", quality=95), 3)
    np.testing.assert_allclose(pixels[8, 8], (255, 0, 0), atol=6)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    pixels = decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 3)
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.array(RED, np.uint8), (4, 4, 3)))


def test_exif_orientation_is_applied():
    image, exif = two_halves(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    pixels = decode_image(encoded(image, "PNG", exif=exif), 3)
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(image), -1))


def test_a_large_jpeg_is_decoded_smaller_but_not_below_twice_the_size():
    smooth = np.linspace(0, 255, 512).astype(np.uint8)
    data = encoded(Image.fromarray(np.broadcast_to(smooth, (512, 512)).copy()), "JPEG", quality=95)
    pixels = decode_image(data, 1, short_side=64)
    assert pixels.shape == (128, 128, 1)
    np.testing.assert_allclose(pixels[0, :, 0], smooth.reshape(128, 4).mean(axis=1), atol=3)
    assert decode_image(data, 1, short_side=300).shape == (512, 512, 1)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises far more than follows."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [decode.MAX_PIXELS // 8192 + 1, 13_000, 60_000])
def test_giants_are_refused_from_their_header(side):
    with pytest.raises(BrokenImage, match="pixels"):
        decode_image(png_claiming(max(side, 8192), max(side, 8192)), 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for cut in (0, 1, 10, len(data) // 2):
        with pytest.raises(BrokenImage):
            decode_image(data[:cut], 3)


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0"]
)
def test_other_formats_are_refused(data):
    with pytest.raises(BrokenImage, match="JPEG"):
        decode_image(data, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_flipped_bytes_never_raise_anything_else(kind):
    """Whatever is done to the bytes, the answer is a picture or BrokenImage."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    original = np.frombuffer(encoded(Image.fromarray(noise), kind), np.uint8)
    outcomes = set()
    for _ in range(60):
        data = original.copy()
        data[rng.integers(0, min(len(data), 200), 3)] = rng.integers(0, 256, 3)
        try:
            outcomes.add(decode_image(data.tobytes(), 3).ndim)
        except BrokenImage:
            outcomes.add("broken")
    assert outcomes <= {3, "broken"}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_marks_what_is_transparent(mode):
    """As DALL-E 2's API has it, whatever colour lies there; without transparency what is white is marked."""
    image = Image.new("RGBA", (6, 4), (255, 255, 255, 255))
    image.paste((0, 0, 0, 0), (0, 0, 2, 4))
    mask = decode_mask(encoded(image.quantize(4) if mode == "P" else image.convert(mode)))
    assert (mask.shape, mask.dtype) == ((4, 6, 1), np.uint8)
    np.testing.assert_array_equal(mask[..., 0] > 127, np.tile(np.arange(6) < 2, (4, 1)))
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(mask[..., 0]).convert("RGBA"))), mask)
