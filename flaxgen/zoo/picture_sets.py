"""Pictures to be evaluated, by number: those that lie somewhere, and those that a model draws."""

import dataclasses
import glob
import hashlib
import os
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from flaxgen import parallel
from flaxgen.data import Data, Order, batches, open_source
from flaxgen.types import Source
from flaxgen.zoo import diffusion
from flaxgen.zoo.features import fingerprint

LOOKED_AT = 32
"""Pictures that are decoded to tell one data set from another."""
Batch = Mapping[str, np.ndarray]
"""`image` [B H W C], uint8 or float in [-1, 1], and `text`, an array of str, where there are captions."""


class Pictures(NamedTuple):
    """`about` is what the pictures follow from, as JSON values; `count` how many there are, None without end.

    `read(first, batch)` gives the batches from picture `first` on, without end, each as this process's share of it.
    Picture i depends on i alone, whatever the batch.
    """

    about: Mapping[str, Any]
    count: int | None
    read: Callable[[int, int], Generator[Batch, None, None]]


def of_data(data: Data, seed: int, *, captions: bool = False) -> Pictures:
    """The examples of `data` in the order that the seed gives, so that the first N are any N; not cropped at random and
    not flipped.

    Raises:
        DataError: if they cannot be read.
    """
    data = dataclasses.replace(data, random_crop=False, flip=False)
    source = open_source(data)
    fields = ("image", "text") if captions else ("image",)

    def read(first, batch):
        order = Order(seed, batch, parallel.process_index(), parallel.process_count())
        return batches(
            source, order, start_step=first // batch, fields=fields, threads=data.threads, prefetch=data.prefetch
        )

    about = {"kind": "data", "seed": seed, "content": content_hash(data, source)}
    about |= {name: getattr(data, name) for name in ("source", "name", "split", "image_size", "resize", "channels")}
    return Pictures(about, len(source), read)


def of_draw(draw: Callable[[range], Batch], about: Mapping[str, Any]) -> Pictures:
    """What `draw` makes of numbers; every process draws the whole batch with the others, and keeps its share."""

    def read(first, batch):
        local = batch // parallel.process_count()
        mine = slice(parallel.process_index() * local, (parallel.process_index() + 1) * local)
        while True:
            drawn = draw(range(first, first + batch))
            yield {name: value[mine] for name, value in drawn.items()}
            first += batch

    return Pictures({"kind": "samples", **about}, None, read)


def of_model(model: diffusion.Model, seed: int, sampling: diffusion.Sampling | None = None) -> Pictures:
    """What a model draws from the seed, all classes in turn; `sampling` is by default as in its config."""
    chosen, key = sampling or model.config.sampling, jax.random.key(seed)
    settings = {name: value for name, value in dataclasses.asdict(chosen).items() if name != "batch"}
    about = {"seed": seed, "model": fingerprint(model.params), "step": model.step, "sampling": settings}
    return of_draw(lambda numbers: {"image": model.sample(key, numbers, sampling=chosen)}, about)


def content_hash(data: Data, source: Source) -> str:
    """What tells a data set from others wherever it lies: the names and sizes of its files, how many pictures there
    are, and some of them as they are evaluated."""
    digest = hashlib.sha256()
    inside = [os.path.join(folder, name) for folder, _, names in os.walk(data.path) for name in names]
    for path in sorted(inside or glob.glob(data.path)):
        digest.update(f"{os.path.relpath(path, data.path)} {os.path.getsize(path)}\n".encode())
    for index in sorted({i * len(source) // LOOKED_AT for i in range(LOOKED_AT)}):
        image = source[index]["image"]
        digest.update(f"{image.shape}".encode() + image.tobytes())
    return f"{len(source)} pictures {digest.hexdigest()[:16]}"
