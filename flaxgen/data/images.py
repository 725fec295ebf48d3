"""Stored pictures to arrays of one kind: decoding, the transforms without chance in them, and the bookkeeping of what
cannot be used."""

import logging
import math
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flaxgen.data.buckets import Size, nearest_bucket
from flaxgen.data.decode import MAX_LABEL, BrokenImage, DataError, decode_image, to_channels
from flaxgen.data.transforms import FILTERS, center_crop, cover, resize_short_side, short_side_shape

logger = logging.getLogger(__name__)
MIN_READ = 64
"""The share of broken elements is judged once this many different ones (or all) were looked at."""
MAX_LOGGED = 5


@runtime_checkable
class Stored(Protocol):
    """Examples as they lie on disk: `image` is encoded bytes or a uint8 array, `label` an int, `text` a str.

    Reading one may raise OSError or BrokenImage. `name` is what the user would look for.
    """

    @property
    def class_names(self) -> tuple[str, ...] | None: ...

    @property
    def num_classes(self) -> int | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    def name(self, index: int) -> str: ...


class Frame(NamedTuple):
    """What every picture is brought to: `channels` 1 or 3; shorter side `short_side` (0: as it is), by one of
    `transforms.FILTERS`; middle square of `center` pixels (0: no crop). With `buckets` it fills the one of these
    sizes whose aspect ratio is nearest to its own instead, and is too narrow where it is so for a square."""

    channels: int
    short_side: int = 0
    center: int = 0
    filter: str = FILTERS[0]
    buckets: tuple[Size, ...] = ()


class Images:
    """A source of `image` uint8 [H W C] and, where they are known, `label` int32 [], `text` str and `false_texts`. In
    buckets also of `bucket` int32 [], the number of its own, and of `origin` float32 [4]: the height and width that the
    picture had, and how much of it, resized, is cut off at the top and at the left.

    A broken element is replaced by another one, chosen by its index alone, so that batches stay the same from run to
    run; `broken` holds the index and the reason of each. When more than `max_broken` of the elements looked at (at
    least MIN_READ, or all) are broken, reading raises DataError.
    """

    def __init__(self, stored: Stored, frame: Frame, max_broken: float = 0.25):
        self.class_names, self.num_classes = stored.class_names, stored.num_classes
        self.broken: dict[int, str] = {}
        self._stored, self._frame, self._max_broken = stored, frame, max_broken
        self._seen = np.zeros(len(stored), bool)
        self._read = 0
        self._stride = _stride(len(stored))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        # far strides, because what is broken tends to lie together: one bad shard is not the whole of the data
        for candidate in range(index, index + len(self) * self._stride, self._stride):
            example = self._usable(candidate % len(self))
            if example is not None:
                return example
        raise DataError(f"all {len(self)} elements are broken, the first is {self._first_broken()}")

    def _usable(self, index: int) -> Mapping[str, Any] | None:
        if index in self.broken:
            return None
        example, reason = None, None
        try:
            example = self._prepare(self._stored[index])
        except (BrokenImage, OSError) as error:
            reason = " ".join(str(error).split())
        self._note(index, reason)
        return example

    def _prepare(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        example = {key: stored[key] for key in ("label", "text", "false_texts") if key in stored}
        if "label" in example:
            label = int(example["label"])
            if abs(label) > MAX_LABEL:
                raise BrokenImage(f"its label {str(label)[:40]} is out of range: expected 0 to {MAX_LABEL}")
            example["label"] = np.asarray(label, np.int32)
        return {**_to_frame(stored["image"], self._frame), **example}

    def _note(self, index: int, reason: str | None) -> None:
        with self._lock:
            self._read += not self._seen[index]
            self._seen[index] = True
            if reason is None or index in self.broken:
                return
            self.broken[index] = reason
            count = len(self.broken)
            if count <= MAX_LOGGED:
                more = "; further ones are counted in silence" if count == MAX_LOGGED else ""
                logger.warning("skipped %s: %s%s", self._stored.name(index), reason, more)
            if self._read >= min(MIN_READ, len(self)) and count > self._max_broken * self._read:
                raise DataError(
                    f"{count} of the first {self._read} elements are broken (data.max_broken={self._max_broken}), "
                    f"the first is {self._first_broken()}"
                )

    def _first_broken(self) -> str:
        index, reason = next(iter(self.broken.items()))
        return f"{self._stored.name(index)}: {reason}"


def _to_frame(image: bytes | np.ndarray, frame: Frame) -> dict[str, np.ndarray]:
    about: dict[str, np.ndarray] = {}

    def fit(pixels: UInt8[np.ndarray, "h w C"]) -> UInt8[np.ndarray, "H W C"]:
        if not frame.buckets:
            return _resize(pixels, frame)
        filled, found = _fill(pixels, frame)
        about.update(found)
        return filled

    if isinstance(image, bytes):
        # "box" as version 0.1.0, which differs from a whole decoding by a level or more on average
        draft = frame.short_side if frame.filter == "box" else 0
        return {"image": decode_image(image, frame.channels, draft, fit), **about}
    return {"image": fit(_recolour(image, frame.channels)), **about}


def _fill(pixels: UInt8[np.ndarray, "h w C"], frame: Frame) -> tuple[UInt8[np.ndarray, "H W C"], dict[str, np.ndarray]]:
    """The picture in its bucket, and what is known of it there."""
    rows, columns = pixels.shape[:2]
    short_side_shape(rows, columns, frame.short_side)  # refuses what is too narrow
    bucket = nearest_bucket(rows, columns, frame.buckets)
    image, cut = cover(pixels, *frame.buckets[bucket], frame.filter)
    origin = np.asarray([rows, columns, *cut], np.float32)
    return np.ascontiguousarray(image), {"bucket": np.asarray(bucket, np.int32), "origin": origin}


def _resize(pixels: UInt8[np.ndarray, "h w C"], frame: Frame) -> UInt8[np.ndarray, "H W C"]:
    if frame.short_side:
        pixels = resize_short_side(pixels, frame.short_side, frame.filter)
    # a copy, so that the rest of the picture is not kept with it
    return np.ascontiguousarray(center_crop(pixels, frame.center)) if frame.center else pixels


def _recolour(image: np.ndarray, channels: int) -> UInt8[np.ndarray, "H W C"]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise BrokenImage(f"an array of {image.dtype} {image.shape} is not a uint8 image [H W 1 or 3]")
    if image.shape[-1] == channels:
        return image
    return to_channels(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), channels)


def _stride(length: int) -> int:
    """About 0.618 of the length and prime to it: steps of it visit every index once, far from the one before."""
    stride = max(1, round(0.618 * length))
    while math.gcd(stride, length) > 1:
        stride += 1
    return stride
