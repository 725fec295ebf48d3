"""How the numbers of a tensor lie in another layout and in flaxgen's: each a rearrangement and its exact inverse."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """A rearrangement of numbers and its inverse, for tensors of `ndim` dimensions; None is any."""

    to_flax: Transform
    from_flax: Transform
    ndim: int | None = None


class Parts(NamedTuple):
    """How several tensors are one: `split(whole, count)` into so many, and `join`, its inverse."""

    split: Callable[[np.ndarray, int], Sequence[np.ndarray]]
    join: Callable[[Sequence[np.ndarray]], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
LINEAR = Layout(np.transpose, np.transpose, 2)
"""[out, in] <-> [in, out]"""
CONV_1D = Layout(lambda x: x.transpose(2, 1, 0), lambda x: x.transpose(2, 1, 0), 3)
"""[out, in, width] <-> [width, in, out]"""
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1), 4)
"""[out, in, height, width] <-> [height, width, in, out]"""
CONV_OF_LINEAR = Layout(lambda x: x.T[None, None], lambda x: x[0, 0].T, 2)
"""A linear layer there that is a 1x1 convolution here: [out, in] <-> [1, 1, in, out]"""


def squeeze(axes: tuple[int, ...], then: Layout = SAME, ndim: int | None = None) -> Layout:
    """Drops dimensions of size 1 that the other layout has at `axes`, counted from 0, before the layout `then`.

    `ndim` of the other layout's tensor may be left out where `then` has one.
    """

    def to_flax(x: np.ndarray) -> np.ndarray:
        if odd := [axis for axis in axes if x.shape[axis] != 1]:
            raise ValueError(f"expected 1 at dimension {odd[0]}")
        return then.to_flax(x.squeeze(axes))

    return Layout(
        to_flax,
        lambda x: np.expand_dims(then.from_flax(x), axes),
        ndim if then.ndim is None else then.ndim + len(axes),
    )


def swapped(then: Layout) -> Layout:
    """The second half of the first dimension before the first, then the layout `then`: (scale, shift) there that are
    (shift, scale) here."""

    def swap(x: np.ndarray) -> np.ndarray:
        if x.ndim < 1 or len(x) % 2:
            raise ValueError("expected two halves at dimension 0")
        return np.concatenate(np.split(x, 2)[::-1])

    return Layout(lambda x: then.to_flax(swap(x)), lambda x: swap(then.from_flax(x)), then.ndim)


POINTWISE = squeeze((2, 3), LINEAR)
"""A 1x1 convolution there that is a linear layer here: [out, in, 1, 1] <-> [in, out]"""
POINTWISE_1D = squeeze((2,), LINEAR)
"""[out, in, 1] <-> [in, out]"""


def stacked(*shares: int) -> Parts:
    """Parts one after the other along the first dimension: of the same size, or in proportion to `shares`."""

    def split(whole: np.ndarray, count: int) -> Sequence[np.ndarray]:
        sizes = np.array(shares or (1,) * count)
        if len(sizes) != count or len(whole) % sizes.sum():
            raise ValueError(f"expected at dimension 0 a multiple of {sizes.sum()} for its {count} parts")
        return np.split(whole, np.cumsum(sizes)[:-1] * (len(whole) // sizes.sum()))

    return Parts(split, np.concatenate)


STACKED = stacked()
"""All of the query, then all of the key, then all of the value."""


def _unstack(whole: np.ndarray, count: int) -> Sequence[np.ndarray]:
    if whole.ndim < 1 or len(whole) != count:
        raise ValueError(f"expected {count} at dimension 0, one for each of its parts")
    return list(whole)


SCANNED = Parts(_unstack, np.stack)
"""Each part one place of a first dimension of its own, as Linen's scan keeps the layers that it goes over."""


def interleaved(head_width: int) -> Parts:
    """Parts of a fused attention head by head along the first dimension: `head_width` rows of each part, in turn."""

    def split(whole: np.ndarray, count: int) -> Sequence[np.ndarray]:
        if len(whole) % (count * head_width):
            raise ValueError(f"expected at dimension 0 a multiple of {count} parts of {head_width} a head")
        heads = whole.reshape(-1, count, head_width, *whole.shape[1:])
        return [heads[:, part].reshape(-1, *whole.shape[1:]) for part in range(count)]

    def join(parts: Sequence[np.ndarray]) -> np.ndarray:
        if len(parts[0]) % head_width or len({part.shape for part in parts}) > 1:
            raise ValueError(f"expected parts of one shape, of {head_width} a head at dimension 0")
        heads = [part.reshape(-1, head_width, *part.shape[1:]) for part in parts]
        return np.stack(heads, axis=1).reshape(-1, *parts[0].shape[1:])

    return Parts(split, join)
