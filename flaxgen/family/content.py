"""What tells one data set from another, wherever it lies: by some of its pictures, or by every byte of its files."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.data.folder import METADATA, open_folder
from flaxgen.data.webdataset import find_shards
from flaxgen.types import Source

LOOKED_AT = 32
"""Pictures that are decoded to tell one data set from another."""


def content_hash(data: Data, source: Source) -> str:
    """The names and sizes of its files, how many pictures there are, and some of them as they are evaluated."""
    digest = hashlib.sha256()
    for path in sorted(_inside(data.path) or glob.glob(data.path)):
        digest.update(f"{os.path.relpath(path, data.path)} {os.path.getsize(path)}\n".encode())
    for index in _looked_at(source):
        image = source[index]["image"]
        digest.update(f"{image.shape}".encode() + image.tobytes())
    return f"{len(source)} pictures {digest.hexdigest()[:16]}"


def full_hash(data: Data, source: Source, notes: Path) -> str:
    """Names, sizes and bytes of all files that the examples are read from, how many these are, and some of them as they
    are read, with their captions: what does not stay the same where a picture or a caption changes.

    Files are read once: what was found is noted in the folder `notes`, and holds until a file has another size, inode
    or time. Every process has to call this; process 0 reads first.

    Raises:
        DataError, OSError: if there are no such files, or one cannot be read.
    """
    if parallel.process_index() != 0:
        parallel.agree(0)
    place = _place(data)
    digest = hashlib.sha256(_sum_of_files(_files(data, place), place, notes, data.threads).encode())
    if parallel.process_index() == 0:
        parallel.agree(0)
    for index in _looked_at(source):
        example = source[index]
        image = example["image"]
        digest.update(f"{image.shape} {example.get('text')!r}".encode() + image.tobytes())
    return f"{len(source)} examples {digest.hexdigest()}"


def _looked_at(source: Source) -> list[int]:
    return sorted({i * len(source) // LOOKED_AT for i in range(LOOKED_AT)})


def _inside(folder: str) -> list[str]:
    return [os.path.join(below, name) for below, _, names in os.walk(folder) for name in names]


def _place(data: Data) -> str:
    """The folder of the split, or of the TFDS data set; the path itself where there is none."""
    below = os.path.join(data.path, data.name.partition(":")[0] if data.source == "tfds" else data.split)
    return below if data.path and os.path.isdir(below) else data.path


def _files(data: Data, place: str) -> list[str]:
    """The files that the examples are read from; none where they are drawn, or come with flaxgen."""
    if data.source == "folder":
        folder = open_folder(Path(place), data.caption_field, data.label_field)
        return [os.path.join(place, METADATA), *(folder.name(i) for i in range(len(folder)))]
    if data.source == "webdataset":
        return find_shards(place)
    if data.source in ("array_record", "tfds"):
        return sorted(_inside(place) or glob.glob(place))
    return []


def _sum_of_files(files: Sequence[str], place: str, notes: Path, threads: int) -> str:
    """Of the files that are there: a picture that is missing is skipped when it is read."""
    there = [(path, os.stat(path)) for path in files if os.path.isfile(path)]
    seen = [[os.path.realpath(path), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for path, s in there]
    note = notes / hashlib.sha256(json.dumps([place, seen]).encode()).hexdigest()[:32]
    if note.is_file() and re.fullmatch("[0-9a-f]{64}", noted := note.read_text("utf-8", "replace")):
        return noted
    with ThreadPoolExecutor(max(1, threads)) as readers:
        sums = readers.map(_sum_of_file, (path for path, _ in there))
        rows = [[os.path.relpath(path, place), s.st_size, found] for (path, s), found in zip(there, sums, strict=True)]
    whole = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    if there:
        notes.mkdir(parents=True, exist_ok=True)
        note.write_text(whole)
    return whole


def _sum_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
