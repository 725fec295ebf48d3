"""What another model says of every example of a data set, computed once and kept on disk: CLIP embeddings of pictures
and captions, latents, codes, states of text encoders.

A cache has one folder for each SHARD examples, with a memory-mapped array a field and the sums of its files. Its name
follows from the model and from every byte of the data, so that what is said of other pictures or captions is never
read. Every process makes its share of the shards; a run that was stopped resumes at the first missing one, and one that
is damaged is made again.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from flaxgen import bounded_json, parallel
from flaxgen.data import Data, open_source
from flaxgen.family.content import full_hash
from flaxgen.family.family import Family
from flaxgen.family.trained import Files
from flaxgen.train.config import require
from flaxgen.train.manifest import find_fault, write_manifest
from flaxgen.types import Source

SHARD = 4096
EMPTY = "empty.npz"
NOTES = "sums"
NOT_IDENTITY = ("path", "threads", "prefetch", "label_field", "max_broken")
"""Fields of `Data` that change nothing of what is computed from the same files."""
DRAWN = 7006
"""The seed of examples that stand for all."""
STALE = 3600.0
"""Seconds after which what a writer has not finished is no one's: a shard is computed before it is written."""
Fields = Mapping[str, np.ndarray]


class Encoder(NamedTuple):
    """A model as a function of examples: `encode(examples)` gives each of `fields` for all of them, [N ...].

    `fingerprint` tells it from others, `see(data)` is how it reads pictures, and `empty` what it says of the empty
    caption, or {}. `needs` names fields of an example and says what lacks, and the way out, where there is none;
    `open` opens the data.
    """

    name: str
    fingerprint: str
    fields: tuple[str, ...]
    encode: Callable[[Sequence[Mapping[str, Any]]], Fields]
    see: Callable[[Data], Data] = lambda data: data
    empty: Callable[[], Fields] = dict
    needs: Mapping[str, str] = {}
    open: Callable[[Data], Source] = open_source


class Cached:
    """The `length` examples of a cache, as a source of the encoder's fields; `empty` are those of the empty caption."""

    def __init__(self, folder: Path, fields: tuple[str, ...], length: int):
        self._shards = [
            {name: np.load(folder / _name(i) / f"{name}.npy", mmap_mode="r") for name in fields}
            for i in range(_count(length))
        ]
        self._fields, self._length = fields, length
        with np.load(folder / EMPTY) as stored:
            self.empty = dict(stored)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        shard, row = divmod(index, SHARD)
        return {name: np.array(self._shards[shard][name][row]) for name in self._fields}

    def first(self, field: str, num: int) -> np.ndarray:
        """The field of the first `num` examples."""
        parts = [shard[field] for shard in self._shards[: -(-num // SHARD)]]
        return np.concatenate(parts)[:num]

    def drawn(self, field: str, num: int) -> np.ndarray:
        """The field of `num` examples, at most all, of which any are as likely: the same ones for every field. What is
        stored one after the other is often alike, such as the examples of a class."""
        if num >= self._length:
            return self.first(field, self._length)
        places = np.sort(np.random.default_rng(DRAWN).choice(self._length, num, replace=False))
        bounds = np.searchsorted(places, np.arange(len(self._shards) + 1) * SHARD)
        rows = [places[a:b] - i * SHARD for i, (a, b) in enumerate(itertools.pairwise(bounds))]
        return np.concatenate([shard[field][row] for shard, row in zip(self._shards, rows, strict=True)])


class Joined:
    """The fields of several sources of one length side by side, each read by a function of its own; batches are of the
    first one's groups."""

    def __init__(self, *parts: tuple[Source, Callable[[Mapping[str, Any]], Mapping[str, Any]]]):
        self._parts = parts
        self.broken, self.groups = (
            getattr(parts[0][0], name, none) for name, none in (("broken", {}), ("groups", None))
        )

    def __len__(self) -> int:
        return len(self._parts[0][0])

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {name: value for source, read in self._parts for name, value in read(source[index]).items()}


@functools.lru_cache(maxsize=4)
def load_companion(family: Family, path: str) -> Any:
    """The model of that family that a stage is trained with.

    Raises:
        ValueError: if there is none.
    """
    name = family.name
    article = "an" if name[0] in "aeiou" else "a"
    require(bool(path), f"{name} is not set: train {article} {name} first and name its run with --set {name}=DIR")
    return family.load(path)


def companion_file(name: str) -> str:
    """The small file in which a stage keeps the fingerprint of the companion of that name."""
    return f"{name.lower()}.json"


def check_companion(files: Files, name: str, fingerprint: str) -> Files:
    """The `companion_file` of a stage, which has to name the companion of this fingerprint.

    Raises:
        ValueError: if the stage was trained with another one.
    """
    file = companion_file(name)
    if file in files:
        known = _read_fingerprint(file, files[file], name)
        require(
            known == fingerprint,
            f"this stage was trained with the {name} {known}, this one is {fingerprint}: use the one it was trained "
            "with",
        )
    return {file: (json.dumps({"fingerprint": fingerprint}) + "\n").encode()}


def _read_fingerprint(file: str, content: bytes, name: str) -> str:
    try:
        known = bounded_json.loads(content)["fingerprint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        known = None
    if not isinstance(known, str):
        raise ValueError(f"{file} is damaged: expected the fingerprint of a {name}")
    return known


def open_cache(encoder: Encoder, data: Data, root: Path) -> tuple[Path, tuple[str, ...], int]:
    """Computes what the encoder says of all examples of `data`, as far as it is not in a folder below `root` yet; what
    `Cached` is made of.

    Raises:
        ValueError: if the data lack a field that it needs.
    """
    seen = encoder.see(data)
    source = encoder.open(seen)
    folder = root / _key(encoder, seen, full_hash(seen, source, root / NOTES))
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
    rows = [range(i * SHARD, min((i + 1) * SHARD, len(source))) for i in range(_count(len(source)))]
    mine = range(parallel.process_index(), len(rows), parallel.process_count())
    with ThreadPoolExecutor(max(1, data.threads)) as readers:
        whole = readers.map(_is_whole, (folder / _name(i) for i in mine))
        missing = [i for i, good in zip(mine, whole, strict=True) if not good]
        for i in tqdm(missing, f"{encoder.name} embeddings", unit="shard", disable=not missing):
            examples = list(readers.map(source.__getitem__, rows[i]))
            for field, said in encoder.needs.items():
                require(field in examples[0], f"data.source={data.source} {said}")
            _write(folder / _name(i), encoder.fields, encoder.encode(examples))
    if parallel.process_index() == 0 and _read_empty(folder / EMPTY) is None:
        with (partial := _unfinished(folder / EMPTY)).open("wb") as file:
            np.savez(file, allow_pickle=False, **encoder.empty())
        os.replace(partial, folder / EMPTY)
    parallel.agree(0)
    lacking = [i for i in range(len(rows)) if not (folder / _name(i)).is_dir()]
    require(not lacking, f"{folder} lacks {len(lacking)} of {len(rows)} shards: put it where all processes can read it")
    return folder, encoder.fields, len(source)


def _write(folder: Path, names: tuple[str, ...], fields: Fields) -> None:
    """A shard whole or not at all; another run may be writing it too."""
    partial = _unfinished(folder)
    partial.mkdir()
    for name in names:
        np.save(partial / f"{name}.npy", fields[name])
    write_manifest(partial, {})
    try:
        os.replace(partial, folder)
    except OSError:  # something is there
        shutil.rmtree(partial if find_fault(folder) is None else folder)
        if partial.is_dir():
            os.replace(partial, folder)


def _unfinished(path: Path) -> Path:
    """Where what is to be at `path` is written: a name of its own, as processes on two hosts may have one number."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")


def _remove_unfinished(folder: Path) -> None:
    """Removes what writers that were killed have left."""
    for partial in folder.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            if time.time() - partial.stat().st_mtime > STALE:
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def _is_whole(folder: Path) -> bool:
    """Whether a shard is there, every byte as it was written; what is damaged is named on stderr."""
    if not folder.is_dir():
        return False
    if fault := _fault_once(folder, *_stamp(folder)):
        _say_damaged(folder, fault)
    return not fault


def _stamp(folder: Path) -> tuple:
    """What changes where a file of the folder is written."""
    files = sorted(folder.iterdir())
    return tuple((file.name, s.st_ino, s.st_size, s.st_mtime_ns) for file in files for s in (file.stat(),))


@functools.cache
def _fault_once(folder: Path, *stamp: tuple) -> str | None:
    """`find_fault`, which reads all of it, once a process: a run opens its cache several times."""
    return find_fault(folder)


def _say_damaged(path: Path, fault: str) -> None:
    print(f"warning: the embeddings in {path} are damaged ({fault}): making them again", file=sys.stderr, flush=True)


def _read_empty(path: Path) -> dict[str, np.ndarray] | None:
    """What is said of the empty caption; None where it is not there or damaged, which is said on stderr."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return dict(stored)
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        _say_damaged(path, str(error))
        return None


def _count(length: int) -> int:
    return -(-length // SHARD)


def _name(shard: int) -> str:
    return f"{shard:06d}"


def _key(encoder: Encoder, data: Data, content: str) -> str:
    """Names a cache by all that its numbers follow from."""
    identity = {k: v for k, v in vars(data).items() if k not in NOT_IDENTITY}
    named = [encoder.fingerprint, encoder.fields, SHARD, identity, content]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
