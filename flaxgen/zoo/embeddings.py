"""CLIP embeddings of a whole data set, computed once and kept on disk: what priors and decoders are trained on.

A cache has one folder for each SHARD examples, with a memory-mapped array a field. Every process makes its share of the
shards; one that was stopped goes on at the first missing one.
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flaxgen import parallel
from flaxgen.data import Data, open_source
from flaxgen.train.config import require
from flaxgen.types import Source
from flaxgen.zoo import clip
from flaxgen.zoo.files import Files

SHARD = 4096
CLIP_FILE = "clip.json"
EMPTY = "empty.npz"
TEXT = ("text_embedding", "text_hidden", "text_mask", "text_ids")
FIELDS = ("image_embedding", *TEXT)
"""Of each example, float32 [D], float32 [D], float16 [L W] (float32 outside the cache), bool [L] and int32 [L]."""
Fields = Mapping[str, np.ndarray]


class Embeddings:
    """The `length` examples of a cache, as a source of FIELDS; `empty` holds the text fields of the empty caption."""

    def __init__(self, folder: Path, length: int):
        self._shards = [
            {name: np.load(folder / _name(i) / f"{name}.npy", mmap_mode="r") for name in FIELDS}
            for i in range(_count(length))
        ]
        self._length = length
        with np.load(folder / EMPTY) as stored:
            self.empty = dict(stored)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        shard, row = divmod(index, SHARD)
        return {name: np.array(self._shards[shard][name][row]) for name in FIELDS}

    def first(self, field: str, num: int) -> np.ndarray:
        """The field of the first `num` examples."""
        parts = [shard[field] for shard in self._shards[: -(-num // SHARD)]]
        return np.concatenate(parts)[:num]


class Joined:
    """The fields of several sources of one length side by side, each read by a function of its own."""

    def __init__(self, *parts: tuple[Source, Callable[[Mapping[str, Any]], Mapping[str, Any]]]):
        self._parts = parts
        self.broken = getattr(parts[0][0], "broken", {})

    def __len__(self) -> int:
        return len(self._parts[0][0])

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {name: value for source, read in self._parts for name, value in read(source[index]).items()}


@functools.lru_cache(maxsize=2)
def load_clip(path: str) -> clip.Model:
    """The CLIP that a stage is trained with.

    Raises:
        ValueError: if there is none.
    """
    require(bool(path), "clip is not set: train a CLIP first and name its run with --set clip=DIR")
    return clip.load(path)


def check_clip(found: Files, fingerprint: str) -> Files:
    """`clip.json` among a stage's files, which has to name the CLIP of this fingerprint.

    Raises:
        ValueError: if the stage was trained with another CLIP.
    """
    if CLIP_FILE in found:
        known = _read_fingerprint(found[CLIP_FILE])
        require(
            known == fingerprint,
            f"this stage was trained with the CLIP {known}, this one is {fingerprint}: use the one it was trained with",
        )
    return {CLIP_FILE: (json.dumps({"fingerprint": fingerprint}) + "\n").encode()}


def _read_fingerprint(content: bytes) -> str:
    try:
        known = json.loads(content)["fingerprint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        known = None
    if not isinstance(known, str):
        raise ValueError(f"{CLIP_FILE} is damaged: expected the fingerprint of a CLIP")
    return known


def open_embeddings(clip_path: str, data: Data, cache: str) -> Embeddings:
    """The embeddings of all examples of `data`, in a folder below `cache` ("": below the CLIP's own directory).

    Raises:
        ValueError: if there is no CLIP, or the data have no captions.
    """
    model = load_clip(clip_path)
    seen = replace(
        data,
        image_size=clip.image_shape(model.config)[0],
        channels=3,
        resize=0,
        random_crop=False,
        flip=False,
    )
    folder = Path(cache or Path(clip_path) / "embeddings") / _key(model.fingerprint, seen)
    folder.mkdir(parents=True, exist_ok=True)
    source = open_source(seen)
    rows = [range(i * SHARD, min((i + 1) * SHARD, len(source))) for i in range(_count(len(source)))]
    mine = range(parallel.process_index(), len(rows), parallel.process_count())
    missing = [i for i in mine if not _is_whole(folder / _name(i), len(rows[i]))]
    with ThreadPoolExecutor(max(1, data.threads)) as readers:
        for i in tqdm(missing, "CLIP embeddings", unit="shard", disable=not missing):
            _write(folder / _name(i), _embed(model, list(readers.map(source.__getitem__, rows[i])), data))
    if parallel.process_index() == 0 and not (folder / EMPTY).is_file():
        partial = folder / f"{os.getpid()}.{EMPTY}"
        np.savez(partial, allow_pickle=False, **empty_text(model))
        os.replace(partial, folder / EMPTY)
    parallel.agree(0)
    lacking = [i for i in range(len(rows)) if not _is_whole(folder / _name(i), len(rows[i]))]
    require(not lacking, f"{folder} lacks {len(lacking)} of {len(rows)} shards: put it where all processes can read it")
    return Embeddings(folder, len(source))


def empty_text(model: clip.Model) -> dict[str, np.ndarray]:
    """The text fields of the empty caption, each without a batch axis."""
    return {name: value[0] for name, value in text_fields(model, [""]).items()}


def text_fields(model: clip.Model, captions: list[str]) -> dict[str, np.ndarray]:
    """What the stages are told of captions, [N ...]."""
    tokens, encoded = model.tokenizer(captions), model.encode_text(captions)
    return {
        "text_embedding": np.asarray(encoded.embedding, np.float32),
        "text_hidden": np.asarray(encoded.hidden, np.float32),
        "text_mask": tokens.mask,
        "text_ids": tokens.ids,
    }


def _embed(model: clip.Model, examples: list[Mapping[str, Any]], data: Data) -> Fields:
    require("text" in examples[0], f"data.source={data.source} has no captions: set data.caption_field")
    image = model.encode_image(np.stack([example["image"] for example in examples]))
    text = text_fields(model, [example["text"] for example in examples])
    half = {"text_hidden": text["text_hidden"].astype(np.float16)}
    return {"image_embedding": image.astype(np.float32), **text, **half}


def _write(folder: Path, fields: Fields) -> None:
    """A shard whole or not at all; another run may be writing it too."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in FIELDS:
        np.save(partial / f"{name}.npy", fields[name])
    try:
        os.replace(partial, folder)
    except OSError:  # something is there
        length = len(fields[FIELDS[0]])
        shutil.rmtree(partial if _is_whole(folder, length) else folder)
        if partial.is_dir():
            os.replace(partial, folder)


def _is_whole(folder: Path, length: int) -> bool:
    """Whether a shard is there, with so many examples; where data were added, the last one has too few."""
    first = folder / f"{FIELDS[0]}.npy"
    return first.is_file() and len(np.load(first, mmap_mode="r")) == length


def _count(length: int) -> int:
    return -(-length // SHARD)


def _name(shard: int) -> str:
    return f"{shard:06d}"


def _key(fingerprint: str, data: Data) -> str:
    """Names a cache by what its numbers follow from."""
    identity = {k: v for k, v in vars(data).items() if k not in ("threads", "prefetch", "label_field", "max_broken")}
    return hashlib.sha256(json.dumps([fingerprint, identity], sort_keys=True).encode()).hexdigest()[:16]


def check_widths(net: Any, context: int, source: Embeddings) -> None:
    """Raises ValueError unless a stage's net, told captions of `context` tokens, fits these embeddings. A net with a
    text tower of its own reads tokens, and its hidden states may be of any width."""
    dim, (length, width) = source.first("image_embedding", 1).shape[1], source.empty["text_hidden"].shape
    own = getattr(net, "text", None) is not None
    for field, ours, theirs in (
        ("net.embedding_dim", net.embedding_dim, dim),
        ("net.text_dim", net.text_dim, net.text_dim if own else width),
        ("context", context, length),
    ):
        require(ours == theirs, f"{field}={ours} does not fit this CLIP, expected {theirs}")
