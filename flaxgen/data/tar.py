"""The members of a tar archive, and its damage: Python's `tarfile` takes a damaged header for the archive's end."""

import os
import tarfile
from collections.abc import Generator, Iterator
from io import BufferedReader
from typing import NamedTuple

from flaxgen.data.decode import DataError

BLOCK = 512
END = 2 * BLOCK
"""Bytes of zeros that an archive ends with, at least [POSIX.1-2017, pax, ustar interchange format]."""
MAGIC = slice(257, 262)
STRETCH = 2**20
WAY_OUT = "fetch it again or leave it out"


class Damage(NamedTuple):
    """Bytes [start, end) of an archive in which there should be a header, and is none; a member begins at `end`, or the
    file ends."""

    start: int
    end: int


def tar_members(path: str) -> Iterator[tarfile.TarInfo | Damage]:
    """The files in an archive in order, and between them each damage; what follows it is found by its header.

    Raises:
        DataError: naming the archive and the byte, if it is no tar, or is cut short: a member is incomplete, or the
            zeros that end an archive are missing.
    """
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        position = 0
        while True:
            file.seek(position)
            position = yield from _members_from(file, path)
            if position > length:
                raise DataError(f"{path} is cut short: its last member would end at byte {position}: {WAY_OUT}")
            end, is_header = _after(file, position)
            if not is_header and length - end < END:
                raise DataError(f"{path} is cut short at byte {position}: the zeros at its end are missing: {WAY_OUT}")
            if end > position:
                yield Damage(position, end)
            if not is_header:
                return
            position = end


def _members_from(file: BufferedReader, path: str) -> Generator[tarfile.TarInfo, None, int]:
    """The files from the place on at which the archive is; returns where there is no header any more."""
    start, tar = file.tell(), None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.size < 0:
                    return member.offset
                if member.isfile():
                    yield member
            return tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if start == 0 and (tar is None or tar.offset == 0):
            raise DataError(f"{path} is not a readable tar, from byte 0 on ({error}): {WAY_OUT}") from error
        # the last member is incomplete, or an extended header is damaged, or the one that it announces
        return start if tar is None else tar.offset


def _after(file: BufferedReader, start: int) -> tuple[int, bool]:
    """Where the next member begins behind `start`, where there is none, and True; else where zeros begin that last to
    the end of the file, and False."""
    file.seek(start)
    place, zeros_from = start, start
    while stretch := file.read(STRETCH):
        filled = len(stretch.rstrip(b"\0"))
        for offset in range(0, filled, BLOCK):
            if place + offset > start and _is_header(stretch[offset : offset + BLOCK]):
                return place + offset, True
        if filled:
            zeros_from = place + -(-filled // BLOCK) * BLOCK
        place += len(stretch)
    return zeros_from, False


def _is_header(block: bytes) -> bool:
    if block[MAGIC] != b"ustar":
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
