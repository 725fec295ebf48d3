"""Pictures to be evaluated, by number: those that lie somewhere, and those that a model draws."""

import dataclasses
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import numpy as np

from flaxgen import parallel
from flaxgen.data import Data, Order, batches, open_source
from flaxgen.data.loader import element_at
from flaxgen.family.content import content_hash
from flaxgen.family.request import Request, to_json
from flaxgen.family.requests import Draw, Sample
from flaxgen.train.config import require
from flaxgen.types import Source

GROUPS = 7005
"""The last word of the seeds of groups, so that no other stream of the same seed is equal."""
Batch = Mapping[str, np.ndarray]
"""`image` [B H W C], uint8 or float in [-1, 1]; `text`, an array of str, where there are captions; and of stored
pictures `replaced` [B] bool, whether each stands for one that is broken."""


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
    source = _Marked(open_source(data))
    fields = ("image", "replaced", "text") if captions else ("image", "replaced")

    def read(first, batch):
        order = Order(seed, batch, parallel.process_index(), parallel.process_count())
        return batches(
            source, order, start_step=first // batch, fields=fields, threads=data.threads, prefetch=data.prefetch
        )

    about = {"kind": "data", "seed": seed, "content": content_hash(data, source)}
    about |= {
        name: getattr(data, name) for name in ("source", "name", "split", "image_size", "resize", "filter", "channels")
    }
    return Pictures(about, len(source), read)


class _Marked:
    """A source whose examples also say whether they are `replaced`: stand for a broken one."""

    def __init__(self, source: Source):
        self._source, self._broken = source, getattr(source, "broken", {})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self._source[index]
        return {**example, "replaced": np.asarray(index in self._broken)}


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


def of_samples(model: Any, request: Sample) -> Pictures:
    """What a model draws by number, as the request says: all classes in turn, unless it names one."""

    def draw(numbers: range) -> Batch:
        asked = dataclasses.replace(request, first=numbers.start, num=len(numbers))
        return {"image": model.perform(asked).images}

    return of_draw(draw, _about(model, request, "first", "num"))


def of_reconstructions(model: Any, data: Data, seed: int) -> Pictures:
    """What becomes of the pictures of `data` in an autoencoder, in the order of those that `of_data` gives.

    Raises:
        ValueError: if the data cannot be read.
    """
    data = dataclasses.replace(data, random_crop=False, flip=False)
    source = open_source(data)

    def draw(numbers: range) -> Batch:
        images = np.stack([source[element_at(len(source), seed, number)]["image"] for number in numbers])
        return {"image": model.autoencode(images)}

    about = {"model": model.fingerprint, "reconstructed": content_hash(data, source), "seed": seed}
    return of_draw(draw, about)._replace(count=len(source))


def of_captions(model: Any, data: Data, request: Draw, group: int) -> Pictures:
    """What a model draws of the captions of `data`, in the order that the seed gives: those of the pictures that
    `of_data` gives with this seed. Captions are drawn `group` at a time, each with a seed of its own.

    Raises:
        ValueError: if the data cannot be read, or have no captions.
    """
    source, seed = open_source(data), request.seed
    require("text" in source[0], f"{model.kind} draws captions, and {data.path or data.source} has none")

    def captions(numbers):
        return [source[element_at(len(source), seed, number)]["text"] for number in numbers]

    def draw(numbers):
        drawn = []
        for first in range(numbers.start - numbers.start % group, numbers.stop, group):
            asked = tuple(captions(range(first, min(first + group, numbers.stop))))
            one = dataclasses.replace(request, captions=asked, num=1, seed=_seed_of(seed, first // group))
            drawn.append(model.perform(one).images[max(numbers.start - first, 0) :])
        return {"image": np.concatenate(drawn), "text": np.array(captions(numbers), object)}

    about = {**_about(model, request, "captions", "num"), "captions": content_hash(data, source), "group": group}
    return of_draw(draw, about)


def _about(model: Any, request: Request, *varying: str) -> dict[str, Any]:
    """What the pictures follow from, but for the fields that differ from picture to picture."""
    asked = {name: value for name, value in to_json(request).items() if name not in varying}
    return {"model": model.fingerprint, "step": model.step, "settings": model.settings(request), **asked}


def _seed_of(seed: int, group: int) -> int:
    """A seed for a group of pictures; each group of each seed has another."""
    return int(np.random.SeedSequence((seed, group, GROUPS)).generate_state(1)[0])
