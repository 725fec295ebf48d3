"""What is kept of a set of pictures for its evaluation: gathered over batches, devices and processes, saved on the way,
and cached for the next time."""

import contextlib
import functools
import hashlib
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8, UInt64
from tqdm import tqdm

from flaxgen import bounded_json, parallel
from flaxgen.data import to_pixels
from flaxgen.family.evaluation import CAPTIONS, CLASSES, FEATURES
from flaxgen.measure.features import Extractor
from flaxgen.measure.picture_sets import Pictures
from flaxgen.metrics import inception_score, moments
from flaxgen.metrics.clip_score import clip_scores
from flaxgen.metrics.inception_score import ClassSums
from flaxgen.metrics.moments import Moments
from flaxgen.train.config import require

WIDEST = 2**14
"""Features wider than this would have a covariance of more than 2 GiB."""


class Request(NamedTuple):
    """`num` pictures in batches of about `batch`; `kept` says what is kept beside moments: FEATURES (4 D bytes a
    picture), CLASSES (sums in `splits` splits, shuffled by the seed), CAPTIONS (the sum of the CLIP scores). Features
    have to be `width` wide (0: any), and a `bar` shows how far it is."""

    num: int
    seed: int
    kept: frozenset[str] = frozenset()
    batch: int = 64
    splits: int = 10
    save_seconds: float = 60.0
    width: int = 0
    bar: bool = True


class Statistics(NamedTuple):
    """Of the first `moments.count` pictures, all of size `size` [H W C]. `digests` tells pictures from each other;
    `features` has room for all, and rows beyond the count hold nothing yet; `score` is the sum of the CLIP scores;
    `replaced` counts the pictures that stand for ones that are broken."""

    size: tuple[int, ...]
    moments: Moments
    digests: UInt64[np.ndarray, " N"]
    features: Float[np.ndarray, "N D"] | None = None
    classes: ClassSums | None = None
    score: float = 0.0
    replaced: int = 0


def gather(
    pictures: Pictures, extractor: Extractor, request: Request, plan: parallel.Plan, path: Path | None = None
) -> Statistics:
    """The statistics of the first `request.num` pictures.

    With a `path` they are written there on the way and at the end, however it ends; what is there already is gone on
    with, or, if it is whole, taken as it is. Every process has to call this, and gets the same.

    Raises:
        ValueError: if there are too few pictures, they differ in size, or the file at `path` is of something else.
        FloatingPointError: if a picture or a feature is not finite.
    """
    require(
        pictures.count is None or 1 <= request.num <= pictures.count,
        f"num={request.num}: there are {pictures.count} pictures",
    )
    require(request.num >= 1 and request.batch >= 1, f"num={request.num}, batch={request.batch}: expected 1 or more")
    batch = _batch_size(request.batch, plan)
    about = _about(pictures, extractor, request)
    stored = statistics = _resumed(path, about, request, batch)
    run = _compiled(extractor.apply, plan)
    position, saved = 0 if statistics is None else statistics.moments.count, time.monotonic()
    silent = None if request.bar and parallel.process_index() == 0 else True  # None: it shows on a terminal
    with (
        contextlib.closing(pictures.read(position, batch)) as stream,
        tqdm(total=request.num, initial=position, unit="picture", leave=False, disable=silent) as bar,
    ):
        try:
            while position < request.num:
                inputs, size = _inputs(next(stream), position, extractor, request, statistics)
                outputs = run(extractor.params, plan.place_batch(inputs) if parallel.process_count() > 1 else inputs)
                statistics = _extended(statistics, size, jax.tree.map(np.asarray, outputs), request)
                bar.update(statistics.moments.count - position)
                position = statistics.moments.count
                if path and time.monotonic() - saved >= request.save_seconds:
                    save(path, about, statistics)
                    stored, saved = statistics, time.monotonic()
        finally:  # an interrupt too: what was gathered is not lost
            if path and statistics is not None and statistics is not stored:
                save(path, about, statistics)
    assert statistics is not None  # there is one picture or more
    return statistics


def _batch_size(asked: int, plan: parallel.Plan) -> int:
    """What devices and processes divide, no smaller than asked."""
    unit = math.lcm(plan.devices, parallel.process_count())
    return -(-asked // unit) * unit


def _about(pictures: Pictures, extractor: Extractor, request: Request) -> dict[str, Any]:
    """What the statistics follow from; equal to what JSON makes of it."""
    about = {"pictures": dict(pictures.about), "features": extractor.name, "num": request.num}
    if CLASSES in request.kept:
        about[CLASSES] = f"{request.splits} splits, seed {request.seed}"
    if CAPTIONS in request.kept:
        about[CAPTIONS] = True
    return json.loads(json.dumps(about))


@functools.lru_cache(maxsize=8)
def _compiled(apply: Callable, plan: parallel.Plan):
    """Digests and marks travel with the pictures, so that every process hears of all of them."""

    def run(params, inputs):
        return {**apply(params, inputs), "digest": inputs["digest"], "replaced": inputs["replaced"]}

    return plan.compile_map(run)


def _inputs(batch: Mapping[str, np.ndarray], first: int, extractor: Extractor, request: Request, before):
    """What the devices are given of one process's share, and the size of the pictures."""
    images = as_pixels(batch["image"], first)
    size = images.shape[1:]
    require(
        before is None or size == before.size,
        f"a picture of {'x'.join(map(str, size))} among ones of {'x'.join(map(str, before.size if before else ()))}: "
        "set image_size to bring all to one",
    )
    replaced = batch.get("replaced", np.zeros(len(images), bool))
    inputs = {"image": images, "digest": digests(images).view(np.uint32).reshape(-1, 2), "replaced": replaced}
    if CAPTIONS in request.kept:
        require("text" in batch, "clip_score needs captions, and these pictures have none")
        require(extractor.tokenize is not None, f"clip_score needs features=clip:MODEL, not {extractor.name}")
        inputs |= (extractor.tokenize or dict)(list(batch["text"]))
    return inputs, size


def as_pixels(images: np.ndarray, first: int) -> UInt8[np.ndarray, "B H W C"]:
    """uint8 of what may be float in [-1, 1]; `first` is the number of the first, for the error.

    Raises:
        FloatingPointError: if a picture is not finite.
        ValueError: if these are no pictures.
    """
    require(images.ndim == 4, f"expected pictures [N H W C], got {images.shape}")
    if images.dtype == np.uint8:
        return images
    (bad,) = np.nonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(bad):
        raise FloatingPointError(
            f"{len(bad)} of {len(images)} pictures are not finite, the first is number {first + bad[0]}: the model is "
            "broken, or its sampling is not the one it was trained for"
        )
    return to_pixels(images)


def digests(images: UInt8[np.ndarray, "B H W C"]) -> UInt64[np.ndarray, " B"]:
    """64 bits a picture that tell it from others."""
    found = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(found), np.uint64)


def _extended(before: Statistics | None, size: tuple[int, ...], outputs: Mapping[str, Any], request: Request):
    """With one batch more, cut to what is asked for; `features` is written in place."""
    start = 0 if before is None else before.moments.count
    rows = {name: value[: request.num - start] for name, value in outputs.items()}
    features, stop = rows["features"], start + len(rows["features"])
    if before is None:
        before = _empty(size, features.shape[1], rows, request)
    if before.features is not None:
        before.features[start:stop] = features
    classes, score = before.classes, before.score
    if classes is not None:
        split = inception_score.assign_splits(request.num, request.splits, request.seed)[start:stop]
        classes = inception_score.add(classes, rows["logits"], split)
    if CAPTIONS in request.kept:
        score += float(np.asarray(clip_scores(features, rows["text"]), np.float64).sum())
    seen = np.ascontiguousarray(rows["digest"]).view(np.uint64)[:, 0]
    return before._replace(
        moments=moments.add(before.moments, features),
        digests=np.concatenate([before.digests, seen]),
        classes=classes,
        score=score,
        replaced=before.replaced + int(rows["replaced"].sum()),
    )


def _empty(size: tuple[int, ...], width: int, rows: Mapping[str, Any], request: Request) -> Statistics:
    require(
        width <= WIDEST,
        f"{width} features a picture are more than {WIDEST}: take smaller pictures, or features of a net",
    )
    require(
        request.width in (0, width),
        f"pictures of {'x'.join(map(str, size))} have {width} features, the real ones {request.width}: bring both to "
        "one size",
    )
    features = np.zeros((request.num, width), np.float32) if FEATURES in request.kept else None
    classes = None
    if CLASSES in request.kept:
        classes = inception_score.empty(request.splits, rows["logits"].shape[1])
    return Statistics(size, moments.empty(width), np.zeros(0, np.uint64), features, classes)


def save(path: Path, about: Mapping[str, Any], statistics: Statistics) -> None:
    """Writes them whole or not at all; process 0 does."""
    if parallel.process_index() != 0:
        return
    count = statistics.moments.count
    arrays: dict[str, Any] = {
        "about": json.dumps(about),
        "size": statistics.size,
        "digests": statistics.digests,
        "score": statistics.score,
        "replaced": statistics.replaced,
    }
    arrays |= {f"moments_{name}": value for name, value in statistics.moments._asdict().items()}
    if statistics.classes is not None:
        arrays |= {f"classes_{name}": value for name, value in statistics.classes._asdict().items()}
    if statistics.features is not None:
        arrays["features"] = statistics.features[:count]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def load(path: Path, about: Mapping[str, Any], request: Request) -> Statistics:
    """What `save` wrote, if it is of the same and holds what is asked for.

    Raises:
        ValueError: naming the first thing that differs, or if the file is damaged.
    """
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        known = bounded_json.loads(str(arrays["about"]))
        statistics = _read(arrays, request.num)
    except (zipfile.BadZipFile, KeyError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or holds no statistics of flaxgen: delete it") from error
    way_out = "delete it, or name another file"
    asked = dict(about)
    for what in {CLASSES, CAPTIONS} - asked.keys():
        known.pop(what, None)
    for key in sorted(asked.keys() | known.keys()):
        ours, theirs = asked.get(key), known.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            key, ours, theirs = _first_difference(ours, theirs)
        require(ours == theirs, f"{path} holds statistics with {key}={theirs!r}, asked for is {ours!r}: {way_out}")
    if FEATURES not in request.kept:
        return statistics._replace(features=None)
    require(statistics.features is not None, f"{path} was made without features, which these metrics need: {way_out}")
    return statistics


def _first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first key with different values; what the pictures look like comes last, as it follows from the others."""
    keys = sorted(ours.keys() | theirs.keys(), key=lambda key: (key == "content", key))
    key = next((key for key in keys if ours.get(key) != theirs.get(key)), keys[-1])
    return key, ours.get(key), theirs.get(key)


def _read(arrays: Mapping[str, Any], num: int) -> Statistics:
    features, classes = None, None
    if "features" in arrays:
        features = np.zeros((num, arrays["features"].shape[1]), np.float32)
        features[: len(arrays["features"])] = arrays["features"]
    if "classes_count" in arrays:
        classes = ClassSums(*(arrays[f"classes_{name}"] for name in ClassSums._fields))
    found = Moments(int(arrays["moments_count"]), arrays["moments_mean"], arrays["moments_outer"])
    size = tuple(int(n) for n in arrays["size"])
    sums = float(arrays["score"]), int(arrays["replaced"])
    return Statistics(size, found, arrays["digests"], features, classes, *sums)


def _resumed(path: Path | None, about: Mapping[str, Any], request: Request, batch: int) -> Statistics | None:
    """What was gathered before, if it ends where a batch does; the same on all processes."""
    found = load(path, about, request) if path and path.exists() else None
    count = 0 if found is None else found.moments.count
    require(
        parallel.agree(count) == count,
        f"{path} has {count} pictures here and another number on process 0: all processes have to see one file",
    )
    return found if count == request.num or count % batch == 0 else None
