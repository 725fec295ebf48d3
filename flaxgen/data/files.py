"""Files that others put there: read if they are regular ones of a size that can be, and never waited for."""

import os
import stat
from pathlib import Path

from flaxgen.data.decode import BrokenImage, DataError

MAX_PICTURE = 256 * 2**20
"""Bytes of an encoded picture."""
MAX_TEXT = 2**20
"""Bytes of a caption, a label or a line that describes a picture."""


def is_regular(path: str | Path) -> bool:
    """Whether it is a file, or a link to one, and no pipe, socket, device or folder."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def read_regular(path: str | Path, most: int = MAX_PICTURE) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        BrokenImage: if it is none, or larger.
        OSError: if it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise BrokenImage("not a regular file")
    # what is put in its place meanwhile is not waited for either
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImage("not a regular file")
        check_size(status.st_size, most)
        return file.read(most)


def check_size(size: int, most: int) -> None:
    """Raises BrokenImage if `size` bytes are more than `most`."""
    if size > most:
        raise BrokenImage(f"{size} bytes, more than the {most} allowed")


def check_regular(path: str | Path) -> None:
    """Raises DataError unless it is a regular file."""
    if not is_regular(path):
        raise DataError(f"{path} is not a regular file: leave it out")
