"""Batches as a pure function of (seed, step): nothing to save, nothing to restore, the same on any number of hosts."""

import functools
import sys
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from flaxgen.data.decode import DataError
from flaxgen.data.transforms import Transform
from flaxgen.types import Source

SHUFFLE, AUGMENT = 7001, 7002
"""Last words of the seeds: without them the streams would be equal to each other's and to default_rng(seed)'s, because
NumPy reads (0, 0) as 0."""


class Order(NamedTuple):
    """Which element stands where: place g = step * batch_size + row of the endless stream holds element g of a fresh
    permutation an epoch, which depends on (seed, g) and on nothing else.

    `batch_size` is the global one; host `host` of `hosts` reads its contiguous share of the rows.
    """

    seed: int
    batch_size: int
    host: int = 0
    hosts: int = 1

    def places(self, step: int) -> range:
        """The places g of this host's rows of the batch of `step`."""
        local = self.batch_size // self.hosts
        first = step * self.batch_size + self.host * local
        return range(first, first + local)


@functools.lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the elements 0 .. length-1 in one epoch, 8 bytes each; read-only, because it is shared."""
    order = np.random.default_rng((seed, epoch, SHUFFLE)).permutation(length)
    order.flags.writeable = False
    return order


def element_at(length: int, seed: int, place: int) -> int:
    """Which of `length` elements stands at `place` of the endless stream."""
    epoch, position = divmod(place, length)
    return int(permutation(length, seed, epoch)[position])


def batch_at(
    source: Source, order: Order, step: int, *, fields: Sequence[str], transform: Transform | None = None
) -> dict[str, np.ndarray]:
    """This host's rows of the batch of `step`, each of `fields` stacked; captions come as an array of str objects.

    Raises:
        DataError: if an element lacks a field, or shapes differ within the batch.
    """
    _check(source, order)
    return _read(source, order, step, fields, transform)


def batches(
    source: Source,
    order: Order,
    *,
    start_step: int,
    fields: Sequence[str],
    transform: Transform | None = None,
    threads: int = 8,
    prefetch: int = 8,
) -> Generator[dict[str, np.ndarray], None, None]:
    """The batches of `start_step`, `start_step` + 1 and so on without end, read ahead: each of `threads` makes whole
    batches, and at most `prefetch` of them wait (0 threads: read when asked for). `close` ends the threads.

    Raises:
        DataError: here if the source is empty or the batch does not divide over the hosts, and from `next` what
            `batch_at` raises.
    """
    import grain  # half a second, so only where batches are read

    _check(source, order)
    steps = grain.MapDataset.range(start_step, sys.maxsize)
    made = steps.map(lambda step: _read(source, order, step, fields, transform))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    return _closing(iter(made.to_iter_dataset(options)))


def _closing(stream) -> Generator[dict[str, np.ndarray], None, None]:
    """`stream`, whose threads end with the generator."""
    try:
        yield from stream
    finally:
        stream.close()


def _read(source, order, step, fields, transform) -> dict[str, np.ndarray]:
    examples = []
    for place, element in zip(order.places(step), _elements(source, order, step), strict=True):
        example = source[element]
        if transform is not None:
            example = transform(example, np.random.default_rng((order.seed, place, AUGMENT)))
        examples.append(example)
    return {field: _stack(field, examples) for field in fields}


def _elements(source: Source, order: Order, step: int) -> list[int]:
    """Which elements are this host's rows; of a source with `groups`, as `buckets.Groups`, all are of one."""
    places, groups = order.places(step), getattr(source, "groups", None)
    if groups is None:
        return [element_at(len(source), order.seed, place) for place in places]
    first = step * order.batch_size
    return groups.elements(order.seed, step, order.batch_size, range(places.start - first, places.stop - first))


def _stack(field: str, examples) -> np.ndarray:
    for example in examples:
        if field not in example:
            raise DataError(f"the data has no field {field!r} in every element, one has only {', '.join(example)}")
    values = [example[field] for example in examples]
    if isinstance(values[0], str):
        return np.array(values, dtype=object)
    shapes = sorted({np.shape(value) for value in values})
    if len(shapes) > 1:
        raise DataError(
            f"{field!r} has shapes {shapes[0]} and {shapes[-1]} in one batch: set data.image_size to bring all to one"
        )
    return np.stack(values)


def _check(source: Source, order: Order) -> None:
    if len(source) == 0:
        raise DataError("the data is empty: check data.path and data.split")
    if order.batch_size < 1 or order.batch_size % order.hosts:
        raise DataError(
            f"batch_size={order.batch_size} does not divide over {order.hosts} hosts: use a multiple of {order.hosts}"
        )
    if order.seed < 0:
        raise DataError(f"seed={order.seed} is negative: use 0 or more")
    if not 0 <= order.host < order.hosts:
        raise DataError(f"host={order.host} is not one of the {order.hosts} hosts")
