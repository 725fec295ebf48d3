"""Sizes that clients of other servers ask for: drawn where the model can, and otherwise made of what it draws."""

import io
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from flaxgen.app import asking
from flaxgen.app.catalogue import Entry
from flaxgen.app.limits import SIDES
from flaxgen.app.replies import Failure
from flaxgen.family.pictures import ABOUT
from flaxgen.family.request import Request

SQUARES = (256, 512, 1024)
"""What every client of OpenAI's knows: any model's pictures are brought to these."""
Size = tuple[int, int]


class Plan(NamedTuple):
    """Fields of the request that have the model draw a size, or the size that its pictures are brought to."""

    fields: dict[str, Any]
    resize: Size | None


def plan_size(entry: Entry, kind: type[Request], size: Size | None, param: str = "size") -> Plan:
    """How pictures of that width and height are had of a model; None is the model's own.

    Raises:
        Failure: listing the sizes that can be had.
    """
    draws_any = {"width", "height"} <= asking.offered(kind).keys()
    if size is None:
        return Plan({}, None)
    if draws_any and all(side in SIDES for side in size):
        return Plan({"width": size[0], "height": size[1]}, size)
    if size in (entry.size, *((side, side) for side in SQUARES)):
        return Plan({}, size)
    own = [] if entry.size is None else [entry.size]
    known = [f"{width}x{height}" for width, height in [*own, *((side, side) for side in SQUARES)]]
    more = f", or sides of {', '.join(map(str, SIDES))}" if draws_any else ""
    raise Failure(400, f"{param}={size[0]}x{size[1]}: expected {', '.join(known)}{more}", param)


def resized(png: bytes, size: Size | None) -> bytes:
    """The PNG file at that size, cut at the longer sides where it has another shape; what it says of itself stays."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        if size is None or picture.size == size:
            return png
        info, file = PngInfo(), io.BytesIO()
        if said := picture.info.get(ABOUT):
            info.add_text(ABOUT, said)
        ImageOps.fit(picture, size, Image.Resampling.LANCZOS).save(file, "PNG", pnginfo=info)
        return file.getvalue()
