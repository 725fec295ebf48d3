"""WebDataset tar shards read at random: the members of each shard are indexed once, then read where they lie."""

import glob
import hashlib
import json
import os
import re
import tarfile
import threading
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from flaxgen.data.decode import SUFFIXES, BrokenImage, DataError
from flaxgen.data.folder import caption_key

KINDS = ("image", "cls", "txt", "json")


class Shards:
    """The samples of tar shards, undecoded; see `images.Stored`.

    A sample is the members that share a name up to its first dot: KEY.jpg (or .png, .webp ...) with KEY.cls (a number),
    KEY.txt (the caption) or KEY.json (an object with caption and label fields) beside it.

    Raises:
        DataError: if no shard or no image is found, or a shard is not a readable tar.
    """

    class_names = None
    num_classes = None

    def __init__(self, path: str, caption_field: str = "", label_field: str = "label"):
        self._paths = find_shards(path)
        indexed = [shard_index(shard) for shard in self._paths]
        self._table = np.concatenate([table for _, table in indexed])
        self._keys = np.concatenate([keys for keys, _ in indexed])
        self._shard = np.repeat(np.arange(len(indexed)), [len(keys) for keys, _ in indexed])
        self._caption_field, self._label_field = caption_field, label_field
        if not len(self):
            raise DataError(f"data.path {path} holds no image in its {len(self._paths)} shards")

    def __len__(self) -> int:
        return len(self._shard)

    def name(self, index: int) -> str:
        return f"{self._paths[self._shard[index]]}:{self._keys[index].decode()}"

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with open(self._paths[self._shard[index]], "rb", buffering=0) as file:  # opened anew: threads share nothing
            members = {
                kind: _member(file, *place) for kind, place in zip(KINDS, self._table[index].tolist(), strict=True)
            }
        example: dict[str, Any] = {"image": members["image"]}
        if members["json"] is not None:
            example |= self._from_json(members["json"])
        try:
            if members["cls"] is not None:
                example["label"] = int(members["cls"])
            if members["txt"] is not None:
                example["text"] = members["txt"].decode().strip()
        except ValueError as error:
            raise BrokenImage(f"its .cls or .txt cannot be read: {error}") from error
        return example

    def _from_json(self, text: bytes) -> Mapping[str, Any]:
        try:
            row = json.loads(text)
        except ValueError as error:
            raise BrokenImage(f"its .json cannot be read: {error}") from error
        if not isinstance(row, dict):
            raise BrokenImage("its .json is not an object")
        caption = caption_key(list(row), self._caption_field, "the .json of a sample")
        example = {"text": str(row[caption])} if caption else {}
        if isinstance(row.get(self._label_field), int):
            example["label"] = row[self._label_field]
        return example


def find_shards(path: str) -> list[str]:
    """The .tar files of a folder, or those that a glob or WebDataset's a-{000..123}.tar matches, sorted.

    Raises:
        DataError: if there are none.
    """
    patterns = [os.path.join(glob.escape(path), "*.tar")] if os.path.isdir(path) else _braces(path)
    found = sorted({name for pattern in patterns for name in glob.glob(pattern) if name.endswith(".tar")})
    if not found:
        raise DataError(f"data.path {path} names no .tar shard (compressed ones cannot be read at random: unpack them)")
    return found


def _braces(path: str) -> list[str]:
    """Every path that {first..last} stands for; numbers keep their leading zeros."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if match is None:
        return [path]
    first, last = match.groups()
    before, after = path[: match.start()], path[match.end() :]
    numbers = range(int(first), int(last) + 1)
    return [rest for n in numbers for rest in _braces(f"{before}{n:0{len(first)}d}{after}")]


def shard_index(path: str) -> tuple[np.ndarray, np.ndarray]:
    """The keys [N] (bytes) of a shard's images and where their members lie: [N 4 2], the offset (-1: absent) and size
    of each of KINDS. Kept in the user's cache folder, where that can be written, until the shard changes.

    Raises:
        DataError: if it is not a readable tar.
    """
    stat = os.stat(path)
    identity = f"{os.path.realpath(path)} {stat.st_size} {stat.st_mtime_ns}"
    cached = cache_folder() / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"
    try:
        with open(cached, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["keys"], arrays["table"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # absent, or cut short by a crash
        keys, table = _scan(path)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp.npz")
        np.savez(partial, keys=keys, table=table)
        partial.replace(cached)
    except OSError:
        pass  # an unwritable cache costs time at the next start, no more
    return keys, table


def cache_folder() -> Path:
    """Where indices are kept: flaxgen/shards below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "flaxgen" / "shards"


def _member(file: FileIO, offset: int, size: int) -> bytes | None:
    if offset < 0:
        return None
    file.seek(offset)
    return file.read(size)


def _scan(path: str) -> tuple[np.ndarray, np.ndarray]:
    places: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    kind = "image" if f".{suffix.lower()}" in SUFFIXES else suffix.lower()
                    if kind in KINDS:
                        places.setdefault(f"{folder}/{stem}" if folder else stem, {})[kind] = (
                            member.offset_data,
                            member.size,
                        )
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is not a readable tar ({error}): fetch it again or leave it out") from error
    kept = {key: members for key, members in places.items() if "image" in members}
    table = [[members.get(kind, (-1, 0)) for kind in KINDS] for members in kept.values()]
    return np.array([key.encode() for key in kept], dtype=bytes), np.array(table, np.int64).reshape(-1, len(KINDS), 2)
