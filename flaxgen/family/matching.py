"""Data that fit a net: opened, looked at, and refused before a run begins."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flaxgen.data import Data, DataError, open_source, random_transform
from flaxgen.data.loader import element_at
from flaxgen.train.config import require
from flaxgen.types import Source

SHOWN_POINTS = 1000


class LabelsChecked:
    """A source of which every label is checked as it is read: JAX would count a negative one from the end."""

    def __init__(self, source: Source, classes: int):
        self._source, self._classes = source, classes
        self.broken = getattr(source, "broken", {})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self._source[index]
        if not 0 <= example["label"] < self._classes:
            raise DataError(
                f"element {index} has label {example['label']}, and the net knows 0 to {self._classes - 1}: number the "
                "classes from 0, and set net.num_classes"
            )
        return example


def open_matching(data: Data, shapes: Mapping[str, tuple[int, ...]], classes: int) -> Source:
    """The examples of `data`, if the first has the fields and shapes that a net is for, and their labels are among its
    `classes` (0: it reads no labels).

    Raises:
        ValueError: naming what does not fit.
    """
    source, augment = open_source(data), random_transform(data)
    example = source[0] if augment is None else augment(source[0], np.random.default_rng(0))
    for field, shape in shapes.items():
        require(field in example, f"data.source={data.source} has no {field}, only {', '.join(example)}")
        require(
            np.shape(example[field]) == shape,
            f"the data has {field}s of shape {np.shape(example[field])}, the net is for {shape}: "
            f"{_advice(np.shape(example[field]), shape)}",
        )
    known = source.num_classes
    require(
        not classes or known is None or known <= classes,
        f"the data has {known} classes and the net knows {classes}: set net.num_classes (and one more for the null "
        "label, where labels are dropped)",
    )
    return LabelsChecked(source, classes) if classes else source


def _advice(has: tuple[int, ...], wants: tuple[int, ...]) -> str:
    """What to set where shapes differ: [H W C] of pictures, [D] of points."""
    if len(has) == len(wants) == 3 and has[:2] != wants[:2]:
        return f"set size={max(has[:2])} for both, or data.image_size={wants[0]}"
    if len(has) == len(wants) == 3:
        return f"set data.channels={wants[2]}, or the channels of the net to {has[2]}"
    return "choose other data, or another net"


def real_examples(data: Data, field: str, num: int) -> np.ndarray:
    """`num` examples to show, at most all, as drawn by the loader with seed 0; nothing random is done to them."""
    source = open_source(replace(data, random_crop=False))
    num = min(num, len(source))
    return np.stack([source[element_at(len(source), 0, place)][field] for place in range(num)])
