"""Sizes that pictures are brought to where not all become squares, and the order in which batches hold one size each
[NovelAI22]."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Size = tuple[int, int]
"""(height, width) in pixels."""
STEPS, WITHIN = 7007, 7008
"""Last words of the seeds, as in `loader.py`: of which bucket's turn it is, and of the order within one."""


def bucket_sizes(size: int, step: int = 64) -> tuple[Size, ...]:
    """Sizes of at most size x size pixels whose sides are multiples of `step`, from a half to twice `size`: to every
    height the largest width and to every width the largest height [NovelAI22].

    Raises:
        ValueError: unless the step divides a half of the size.
    """
    if step < 1 or size < 1 or size % (2 * step):
        raise ValueError(f"size={size}, step={step}: expected a size that is a multiple of twice the step")
    sides = range(size // 2, 2 * size + 1, step)
    tall = [(side, min(size * size // side // step * step, 2 * size)) for side in sides]
    return tuple(sorted({*tall, *((width, height) for height, width in tall)}))


def nearest_bucket(height: int, width: int, buckets: Sequence[Size]) -> int:
    """Which bucket's aspect ratio is nearest to that of a picture, by their logarithms; of several the first."""
    ratio = math.log(height / width)
    return min(range(len(buckets)), key=lambda i: abs(math.log(buckets[i][0] / buckets[i][1]) - ratio))


class Groups:
    """Examples that are of a kind each, such as a bucket, which is theirs in `kinds`: every batch is of one kind.

    In every stretch of as many steps as there are examples a kind has its turn as often as it has examples, in an order
    that depends on the seed, so that all examples are seen as often. The batches of a kind run through fresh
    permutations of its examples without a gap. So what a batch holds is a function of (seed, step) here too.
    """

    def __init__(self, kinds: Int[np.ndarray, " N"]):
        self.kinds = kinds
        self._members = {int(kind): np.flatnonzero(kinds == kind) for kind in np.unique(kinds)}
        self._turns = functools.lru_cache(maxsize=4)(self._make_turns)
        self._within = functools.lru_cache(maxsize=2 * len(self._members) + 2)(self._make_within)

    def elements(self, seed: int, step: int, batch_size: int, rows: range) -> list[int]:
        """Which examples are these rows of the batch of `step`."""
        epoch, position = divmod(step, len(self.kinds))
        kinds, before = self._turns(seed, epoch)
        kind, members = int(kinds[position]), self._members[int(kinds[position])]
        batch = epoch * len(members) + int(before[position])
        found = []
        for row in rows:
            round_, place = divmod(batch * batch_size + row, len(members))
            found.append(int(members[self._within(seed, kind, round_)[place]]))
        return found

    def _make_turns(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Whose turn it is in each step of an epoch, and how often it was theirs before in this epoch."""
        kinds = np.random.default_rng((seed, epoch, STEPS)).permutation(self.kinds)
        before = np.empty(len(kinds), np.int64)
        for kind in self._members:
            (turns,) = np.nonzero(kinds == kind)
            before[turns] = np.arange(len(turns))
        return kinds, before

    def _make_within(self, seed: int, kind: int, round_: int) -> np.ndarray:
        """The order of a kind's examples in one of its epochs."""
        return np.random.default_rng((seed, round_, kind, WITHIN)).permutation(len(self._members[kind]))
