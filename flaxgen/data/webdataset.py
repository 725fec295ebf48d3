"""WebDataset tar shards read at random: the members of each shard are indexed once, then read where they lie."""

import functools
import glob
import hashlib
import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from flaxgen import bounded_json
from flaxgen.data.decode import SUFFIXES, BrokenImage, DataError
from flaxgen.data.files import MAX_PICTURE, MAX_TEXT, check_regular, check_size
from flaxgen.data.folder import as_caption, caption_key, file_size
from flaxgen.data.tar import BLOCK, Damage, tar_members

logger = logging.getLogger(__name__)
MAX_LOGGED = 5
KINDS = ("image", "cls", "txt", "json")
ABSENT = (-1, 0)
"""Offset and size of a member that a sample does not have."""
RANGE = r"\{(\d{1,18})\.\.(\d{1,18})\}"
MAX_SHARDS = 2**20
INDEX_FORMAT = 2
"""Counts up where an index would be another one, so that those of older versions are not read."""


class Shards:
    """The samples of tar shards, undecoded; see `images.Stored`.

    A sample is the members that share a name up to its first dot: KEY.jpg (or .png, .webp ...) with KEY.cls (a number),
    KEY.txt (the caption) or KEY.json (an object with caption and label fields) beside it. What is lost where a shard is
    damaged are samples too, which are broken and named by shard and byte.

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
        self._warn_of_damage()
        self._caption_field, self._label_field = caption_field, label_field
        if not len(self):
            raise DataError(f"data.path {path} holds no image in its {len(self._paths)} shards")

    def __len__(self) -> int:
        return len(self._shard)

    def name(self, index: int) -> str:
        return f"{self._paths[self._shard[index]]}:{self._keys[index].decode(errors='backslashreplace')}"

    def outline(self) -> Iterator[str]:
        """Name and size of every shard, and what members it has; see `identity.Filed`."""
        for path in self._paths:
            yield f"{os.path.basename(path)} {file_size(path)}"
        for key, places in zip(self._keys.tolist(), self._table.tolist(), strict=True):
            yield f"{key} {places}"

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self._table[index, 0, 0] < 0:
            raise BrokenImage("the shard is damaged there")
        with open(self._paths[self._shard[index]], "rb", buffering=0) as file:  # opened anew: threads share nothing
            members = {
                kind: _member(file, kind, *place)
                for kind, place in zip(KINDS, self._table[index].tolist(), strict=True)
            }
        example: dict[str, Any] = {"image": members["image"]}
        if members["json"] is not None:
            example |= self._from_json(members["json"], captions=members["txt"] is None)
        try:
            if members["cls"] is not None:
                example["label"] = int(members["cls"])
            if members["txt"] is not None:
                example["text"] = members["txt"].decode().strip()
        except ValueError as error:
            raise BrokenImage(f"its .cls or .txt cannot be read: {error}") from error
        return example

    def _warn_of_damage(self) -> None:
        (lost,) = np.nonzero(self._table[:, 0, 0] < 0)
        places = list(dict.fromkeys(map(self.name, lost.tolist())))
        for place in places[:MAX_LOGGED]:
            _warn(f"{place}: no header is there, and an example or more is lost")
        if len(places) > MAX_LOGGED:
            _warn(f"the shards are damaged in {len(places)} places, the first are named")

    def _from_json(self, text: bytes, captions: bool) -> Mapping[str, Any]:
        try:
            row = bounded_json.loads(text)
        except ValueError as error:
            raise BrokenImage(f"its .json cannot be read: {error}") from error
        if not isinstance(row, dict):
            raise BrokenImage("its .json is not an object")
        caption = caption_key(list(row), self._caption_field, "the .json of a sample")
        example: dict[str, Any] = {"text": as_caption(row[caption], "the .json")} if caption and captions else {}
        label = row.get(self._label_field)
        if isinstance(label, int) and not isinstance(label, bool):
            example["label"] = label
        return example


@functools.cache
def _warn(text: str) -> None:
    """Once, however often the shards are opened."""
    logger.warning("%s", text)


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
    """Every path that {first..last} stands for; numbers keep their leading zeros.

    Raises:
        DataError: if they are more than MAX_SHARDS.
    """
    match = re.search(RANGE, path)
    if match is None:
        return [path]
    count = math.prod(max(0, int(last) - int(first) + 1) for first, last in re.findall(RANGE, path))
    if count > MAX_SHARDS:
        raise DataError(f"data.path {path} stands for {count} shards, expected at most {MAX_SHARDS}")
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
    check_regular(path)
    stat = os.stat(path)
    identity = f"{INDEX_FORMAT} {os.path.realpath(path)} {stat.st_size} {stat.st_mtime_ns}"
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


def _member(file: FileIO, kind: str, offset: int, size: int) -> bytes | None:
    if offset < 0:
        return None
    check_size(size, MAX_PICTURE if kind == "image" else MAX_TEXT)
    file.seek(offset)
    return file.read(size)


def _scan(path: str) -> tuple[np.ndarray, np.ndarray]:
    """As `shard_index`. What is lost to damage is rows with neither picture nor anything else, whose key says where."""
    places: dict[str, dict[str, tuple[int, int]]] = {}
    damages: list[tuple[Damage, str, str]] = []
    last, broken_off = "", None
    for found in tar_members(path):
        if isinstance(found, Damage):
            broken_off = found
            continue
        folder, _, name = found.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        kind = "image" if f".{suffix.lower()}" in SUFFIXES else suffix.lower()
        key = f"{folder}/{stem}" if folder else stem
        if broken_off is not None:
            damages.append((broken_off, last, key))
            broken_off = None
        last = key
        if kind in KINDS:
            places.setdefault(key, {})[kind] = (found.offset_data, found.size)
    if broken_off is not None:
        damages.append((broken_off, last, last))
    lost = _lost(places, damages)
    kept = {key: members for key, members in places.items() if "image" in members}
    table = [[members.get(kind, ABSENT) for kind in KINDS] for members in [*kept.values(), *({} for _ in lost)]]
    keys = [key.encode("utf-8", "surrogateescape") for key in kept] + lost
    return np.array(keys, dtype=bytes), np.array(table, np.int64).reshape(-1, len(KINDS), 2)


def _lost(places: dict[str, dict[str, tuple[int, int]]], damages: list[tuple[Damage, str, str]]) -> list[bytes]:
    """Takes out of `places` the samples beside each damage that lack what others have, and names what stands for all
    that is lost: as many samples as there must have been at least, and one or more for each damage."""
    if not damages:
        return []
    whole = set().union(*places.values()) if places else set()
    largest = max((sum(size for _, size in members.values()) for members in places.values()), default=0)
    lost = []
    for damage, before, after in damages:
        for key in {before, after}:
            if key in places and places[key].keys() != whole:
                del places[key]
        number = max(1, (damage.end - damage.start) // (largest + 2 * BLOCK * len(whole) + 1))
        lost += [f"byte {damage.start}".encode()] * number
    return lost
