"""Links to pictures: server-made addresses that nobody can guess, for whoever has them, until they end."""

import hmac
import re
import time
from typing import NamedTuple

from flaxgen.app.guard import LINKS, Door
from flaxgen.app.sizes import Size

LASTS = 3_600
"""Seconds until a link ends."""
FORM = re.compile(r"([A-Za-z0-9_-]{22})\.(\d{1,5})x(\d{1,5})\.(\d{1,12})\.([0-9a-f]{64})\.png")


class Linked(NamedTuple):
    """The picture that a link is to, and the size that it is shown at (None: its own)."""

    picture: str
    size: Size | None


def make_link(door: Door, picture: str, size: Size | None, now: float | None = None) -> str:
    """The path of a picture on this server."""
    width, height = size or (0, 0)
    said = f"{picture}.{width}x{height}.{int((time.time() if now is None else now) + LASTS)}"
    return f"{LINKS}{said}.{door.sign('link', said)}.png"


def read_link(door: Door, name: str, now: float | None = None) -> Linked | None:
    """What a link is to; None for what is none of this server's, and for one that has ended."""
    found = FORM.fullmatch(name)
    if found is None:
        return None
    picture, width, height, ends, mark = found.groups()
    is_ours = hmac.compare_digest(mark, door.sign("link", f"{picture}.{width}x{height}.{ends}"))
    if not is_ours or int(ends) < (time.time() if now is None else now):
        return None
    return Linked(picture, (int(width), int(height)) if int(width) else None)
