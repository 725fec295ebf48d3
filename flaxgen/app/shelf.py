"""Pictures as files, each called by the hash of what is in it, with a small one of each beside it."""

import contextlib
import hashlib
import io
import os
import re
import secrets
from pathlib import Path

from PIL import Image

SHA = re.compile(r"[0-9a-f]{64}")
THUMBNAIL = 256
"""Pixels of the longer side of a small picture, at most."""


class Shelf:
    """The folders of pictures and small pictures. Names are hashes alone, opened relative to the folder, and no link is
    followed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._pictures = _open(folder / "pictures")
        self._thumbnails = _open(folder / "thumbnails")

    def put(self, png: bytes) -> str:
        """Keeps a PNG file whole or not at all; returns the hash of its content."""
        sha = hashlib.sha256(png).hexdigest()
        if not _is_there(self._pictures, sha):
            _write(self._pictures, sha, png)
        if not _is_there(self._thumbnails, sha):
            _write(self._thumbnails, sha, shrink(png))
        return sha

    def read(self, sha: str) -> bytes:
        """A picture.

        Raises:
            OSError: if it is gone.
        """
        return _read(self._pictures, sha)

    def read_small(self, sha: str) -> bytes:
        """Its small picture, which is made again where it is gone.

        Raises:
            OSError: if the picture is gone.
        """
        try:
            return _read(self._thumbnails, sha)
        except FileNotFoundError:
            small = shrink(self.read(sha))
            _write(self._thumbnails, sha, small)
            return small

    def remove(self, sha: str) -> None:
        """Removes a picture."""
        for folder in (self._pictures, self._thumbnails):
            _remove(folder, _name(sha))

    def tidy(self, known: set[str]) -> None:
        """Removes what a killed process left: files that are no known picture."""
        for folder in (self._pictures, self._thumbnails):
            for name in os.listdir(folder):
                if name.removesuffix(".png") not in known:
                    _remove(folder, name)

    def close(self) -> None:
        """Closes the folders."""
        os.close(self._pictures)
        os.close(self._thumbnails)


def private(folder: Path) -> Path:
    """The folder, for this user alone; made where there is none.

    Raises:
        ValueError: if it belongs to another user.
        OSError: if it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid():
        raise ValueError(f"{folder} belongs to another user: name another --folder")
    folder.chmod(0o700)
    return folder


def shrink(png: bytes) -> bytes:
    """A PNG file of at most THUMBNAIL pixels a side."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        small.save(file, "PNG")
        return file.getvalue()


def _open(folder: Path) -> int:
    return os.open(private(folder), os.O_RDONLY | os.O_DIRECTORY)


def _name(sha: str) -> str:
    if not SHA.fullmatch(sha):
        raise ValueError(f"{sha!r} is no hash")
    return f"{sha}.png"


def _is_there(folder: int, sha: str) -> bool:
    try:
        os.stat(_name(sha), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(folder: int, sha: str) -> bytes:
    with open(os.open(_name(sha), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
        return file.read()


def _write(folder: int, sha: str, content: bytes) -> None:
    unfinished = f"{secrets.token_hex(8)}.part"
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, _name(sha), src_dir_fd=folder, dst_dir_fd=folder)


def _remove(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
