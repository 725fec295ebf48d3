"""The sixth rule of `test_security.py`: bodies and pictures have bounds."""

import io
import re
import socket
import struct
import zlib

import httpx
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from studio_toy import WRITES, png, raw, served

from flaxgen.app import limits, uploads


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """A studio on this machine that wants none."""
    with served(tmp_path_factory.mktemp("free") / "studio") as running:
        yield running


def bomb(width, height):
    """A PNG of a kilobyte that claims that many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + png()[33:]


def moving(kind):
    file, frames = io.BytesIO(), [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<html><script>alert(1)</script></html>"
BAD_PICTURES = [
    (bomb(60_000, 60_000), "image/png", "no PNG that can be read|60000x60000 pixels"),
    (bomb(2**31 - 1, 1), "image/png", "no PNG that can be read|pixels"),
    (moving("PNG"), "image/png", "3 frames: expected one"),
    (moving("WEBP"), "image/webp", "3 frames: expected one"),
    (moving("GIF"), "image/png", "no PNG that can be read"),
    (SVG, "image/png", "no PNG that can be read"),
    (HTML, "image/jpeg", "no JPEG that can be read"),
    (png(), "image/jpeg", "no JPEG that can be read"),
    (png()[:45], "image/png", "cannot be read"),
    (b"", "image/webp", "no WEBP that can be read"),
]


@pytest.mark.parametrize(("content", "kind", "message"), BAD_PICTURES)
def test_pictures_that_are_none_are_refused(content, kind, message, free):
    reply = httpx.post(f"{free.url}/api/pictures", content=content, headers={**WRITES, "Content-Type": kind})
    assert reply.status_code == 400
    assert re.search(message, reply.json()["error"]["message"])


@pytest.mark.parametrize("kind", ["image/svg+xml", "text/html", "image/gif", "image/tiff", "", "application/json"])
def test_other_types_are_not_taken(kind, free):
    for path in ("/api/pictures", "/api/read"):
        reply = httpx.post(f"{free.url}{path}", content=SVG, headers={**WRITES, "Content-Type": kind})
        assert reply.status_code == 415


def test_of_a_picture_only_pixels_are_kept(free):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>")
    sent = png(pnginfo=info) + b"<script>alert(1)</script>"
    with free.client() as client:
        taken = client.post("/api/pictures", content=sent, headers={"Content-Type": "image/png"}).json()
        kept = client.get(f"/api/pictures/{taken['id']}").content
    assert b"script" not in kept
    with Image.open(io.BytesIO(kept)) as picture:
        assert (picture.size, picture.getpixel((0, 0)), picture.info) == ((8, 8), (128, 128, 128), {})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_pictures_look_the_same_after_they_were_taken(mode):
    import numpy as np

    from flaxgen.data.decode import decode_image, decode_mask

    grey = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    alpha = np.where(grey > 99, 255, grey).astype(np.uint8)
    image = Image.fromarray(np.stack([grey, 255 - grey, grey, alpha], -1), "RGBA")
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    again, width, height = uploads.reencode(file.getvalue(), "image/png", 2**20)
    assert (width, height) == (16, 16)
    for decode in (lambda content: decode_image(content, 3), decode_mask):
        np.testing.assert_array_equal(decode(again), decode(file.getvalue()))


def test_long_bodies_end_before_they_are_read(tmp_path):
    small = limits.Limits()._replace(json=1000, upload=2000, body_time=0.5)
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Flaxgen: 1\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\n"
    with served(tmp_path / "studio", limits=small) as here:
        declared = raw(here, head + b"Content-Length: 1001\r\n\r\n")
        chunk = b"200\r\n" + b" " * 512 + b"\r\n"
        undeclared = raw(here, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)
        for answer in (declared, undeclared):
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"at most 1,000 bytes" in answer
        with socket.create_connection(("127.0.0.1", int(here.url.rpartition(":")[2])), timeout=10) as slow:
            slow.sendall(head + b"Content-Length: 500\r\n\r\n{")
            assert slow.recv(65536).startswith(b"HTTP/1.1 408")
        kind = {**WRITES, "Content-Type": "image/png"}
        assert httpx.post(f"{here.url}/api/pictures", content=b" " * 2001, headers=kind).status_code == 413
        assert httpx.post(f"{here.url}/api/pictures", content=iter([b" " * 1500] * 2), headers=kind).status_code == 413


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e9\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"X-Long: " + b"a" * 70_000 + b"\r\n",
    ],
)
def test_smuggled_bodies_are_refused(head, free):
    start = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Flaxgen: 1\r\nContent-Type: application/json\r\n"
    smuggled = b"0\r\n\r\nGET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        answer = raw(free, start + head + b"\r\n" + smuggled)
    except ConnectionResetError:
        return
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 501", b""), answer[:200]
    assert set(re.findall(rb"HTTP/1.1 (\d)", answer)) <= {b"4", b"5"}, answer
