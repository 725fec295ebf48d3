"""Data: random-access sources of examples, and the loader that makes batches of them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaxgen.data.buckets import Groups, Size, bucket_sizes
from flaxgen.data.decode import BrokenImage, DataError
from flaxgen.data.digits import Digits
from flaxgen.data.emoji import EmojiPictures
from flaxgen.data.folder import open_folder
from flaxgen.data.identity import Filed, identify
from flaxgen.data.images import Frame, Images, Stored
from flaxgen.data.loader import Order, batch_at, batches
from flaxgen.data.pixels import to_pixels, unit_range
from flaxgen.data.records import Records, Tfds
from flaxgen.data.scenes import Scenes
from flaxgen.data.toys import TOYS, Toy
from flaxgen.data.transforms import FILTERS, Transform, make_augment
from flaxgen.data.webdataset import Shards

__all__ = [
    "BrokenImage",
    "Data",
    "DataError",
    "Groups",
    "Images",
    "Order",
    "Size",
    "Toy",
    "Transform",
    "batch_at",
    "batches",
    "bucket_sizes",
    "identity",
    "open_source",
    "random_transform",
    "to_pixels",
    "unit_range",
]


@dataclass(frozen=True)
class Data:
    """Where examples come from and what they are brought to; plain values only.

    `source` is one of SOURCES. `path` is a folder, or a glob of shards; for tfds the folder of its data sets, which may
    be left out, and `name` its data set. `split` is "train" or "test"; below a `path` that has a folder of that name,
    the folder. Images: `channels` 1 or 3; the shorter side becomes `resize` pixels (0: `image_size`) and a square of
    `image_size` (0: images as they are) is cut out, the middle one or, with `random_crop`, any; `flip` mirrors every
    second one. `filter` is how they are resized, one of `transforms.FILTERS`; a config of version 0.1.0 means "box".
    Captions come from `caption_field` ("": text or caption), labels from `label_field`. Toys have `size` points, and
    scenes are `size` pictures, drawn by `seed`, which is part of the data set's identity and no seed of the run; scenes
    also have the splits "seen" (which is "test") and "novel", and easy ones to begin with, "lesson1" and "lesson2".
    Emoji are pictures put together in the same way, of those in the folder `path`; they have the splits "seen",
    "novel" and "closeups".
    Reading stops when more than the share `max_broken` of the images cannot be used. `threads` make batches, of which
    `prefetch` may wait.
    """

    source: str
    path: str = ""
    name: str = ""
    split: str = "train"
    image_size: int = 0
    channels: int = 3
    resize: int = 0
    filter: str = field(default=FILTERS[0], metadata={"absent": "box"})
    random_crop: bool = False
    flip: bool = False
    caption_field: str = ""
    label_field: str = "label"
    seed: int = 0
    size: int = 2**16
    max_broken: float = 0.25
    threads: int = 8
    prefetch: int = 8


MAX_SIZE = 2**30
"""Examples that are drawn: their order in an epoch takes 8 bytes each."""
MADE = ("scenes", "emoji")
"""Sources whose pictures are put together by number, with captions."""
FREE = frozenset({"path", "threads", "prefetch", "max_broken"})
"""Fields that may change between two commands of one run."""
STORED: Mapping[str, Callable[[Data], Stored]] = {
    "digits": lambda data: Digits(data.split),
    "scenes": lambda data: Scenes(data.split, data.seed, data.size, data.resize or data.image_size),
    "emoji": lambda data: EmojiPictures(data.path, data.split, data.seed, data.size, data.resize or data.image_size),
    "folder": lambda data: open_folder(Path(_split_path(data)), data.caption_field, data.label_field),
    "webdataset": lambda data: Shards(_split_path(data), data.caption_field, data.label_field),
    "array_record": lambda data: Records(_split_path(data), data.caption_field, data.label_field),
    "tfds": lambda data: Tfds(_tfds_name(data), data.split, data.path, data.caption_field, data.label_field),
}
"""Sources of images by name, before decoding."""
SOURCES = (*STORED, *TOYS)


def open_source(data: Data, buckets: tuple[Size, ...] = ()) -> Images | Toy:
    """The examples, decoded and resized; the transforms that draw numbers are `random_transform`'s. With `buckets`
    pictures have the one of these sizes that fits them best, and no square.

    It has `num_classes` and `class_names`, None where the data does not say, and `broken`: what was skipped so far.

    Raises:
        DataError: if the source is not known, the path is missing or empty, or a value is out of range.
    """
    _check(data)
    if buckets and (data.source in TOYS or data.filter == "box" or data.random_crop):
        raise DataError(f"buckets are for pictures, each cut once: data.source={data.source!r} and data.filter="
                        f"{data.filter} with data.random_crop={data.random_crop} do not go with them")  # fmt: skip
    short_side = data.resize or data.image_size
    frame = Frame(data.channels, short_side, 0 if data.random_crop else data.image_size, data.filter, buckets)
    try:
        if data.source in TOYS:
            return Toy(data.source, data.split, data.seed, data.size)
        return Images(STORED[data.source](data), frame, data.max_broken)
    except MemoryError as error:
        what = f"data.size={data.size}" if data.source in (*TOYS, *MADE) else f"data.path {data.path}"
        raise DataError(f"{what} has more examples than fit into memory: use fewer") from error


def identity(data: Data) -> dict[str, Any]:
    """What tells data that lie in files from others; {} of what is drawn, or comes with a package.

    Raises:
        DataError: as `open_source`.
    """
    _check(data)
    stored = STORED[data.source](data) if data.source in STORED else None
    return identify(stored) if isinstance(stored, Filed) else {}


def random_transform(data: Data) -> Transform | None:
    """Random crop and flip as the config has them, for `batches`; None where there are none."""
    return make_augment(data.image_size if data.random_crop else 0, data.flip)


def _check(data: Data) -> None:
    if data.source not in SOURCES:
        raise DataError(f"data.source={data.source!r} is not known: use one of {', '.join(SOURCES)}")
    if data.channels not in (1, 3):
        raise DataError(f"data.channels={data.channels} is out of range: use 1 or 3")
    if data.filter not in FILTERS:
        raise DataError(f"data.filter={data.filter!r} is not known: use one of {', '.join(FILTERS)}")
    if data.seed < 0 or data.image_size < 0 or not 1 <= data.size <= MAX_SIZE or not 0 <= data.max_broken <= 1:
        raise DataError(
            f"out of range: data.seed={data.seed} or data.image_size={data.image_size} (0 or more), "
            f"data.size={data.size} (1 to {MAX_SIZE}) or data.max_broken={data.max_broken} (0 to 1)"
        )
    if data.resize and data.resize < data.image_size:
        raise DataError(f"data.resize={data.resize} is smaller than data.image_size={data.image_size}")
    if data.source in TOYS and (data.flip or data.random_crop):
        raise DataError(
            f"data.flip and data.random_crop are for images, and {data.source!r} has points: set them false"
        )
    if data.source in MADE and (data.flip or data.channels != 3):
        raise DataError(
            f"captions of {data.source} say left and right, and colours: set data.flip false and data.channels 3"
        )
    if data.random_crop and not data.image_size:
        raise DataError("data.random_crop needs a size: set data.image_size")
    if data.threads < 0 or data.prefetch < 1:
        raise DataError(f"data.threads={data.threads} (0 or more) or data.prefetch={data.prefetch} (1 or more)")


def _split_path(data: Data) -> str:
    """The path of the split: the folder of that name below `path`, else for "train" the path itself."""
    if not data.path:
        raise DataError(f"data.path is not set: give the data of {data.source!r} with --set data.path=DIR")
    if not os.path.isdir(data.path):
        if not os.path.exists(data.path) and not any(letter in data.path for letter in "*?[{"):
            raise DataError(f"data.path {data.path} does not exist: give another with --set data.path=DIR")
        return data.path
    below = os.path.join(data.path, data.split)
    if os.path.isdir(below):
        return below
    if data.split != "train":
        raise DataError(f"data.path {data.path} has no folder {data.split!r}: give that split's own path")
    return data.path


def _tfds_name(data: Data) -> str:
    if not data.name:
        raise DataError("data.name is not set: name the TFDS data set, for example --set data.name=cifar10")
    return data.name
