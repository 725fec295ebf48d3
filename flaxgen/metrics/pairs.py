"""Means over pairs of pictures that belong together: a picture and its reconstruction, two samples of one caption."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Shaped

Pictures: TypeAlias = Shaped[Array | np.ndarray, "_ _ _ _"]
PairMetric: TypeAlias = Callable[[Pictures, Pictures], Float[Array | np.ndarray, " _"]]
"""From two batches [B H W C] to one number a pair [B]: PSNR, SSIM, a perceptual distance such as LPIPS."""


def mean_over_pairs(metric: PairMetric, batches: Iterable[tuple[Pictures, Pictures]]) -> float:
    """The mean of the metric over all pairs of all batches, summed in float64.

    Raises:
        ValueError: if there is no pair.
    """
    total, count = 0.0, 0
    for left, right in batches:
        values = np.asarray(metric(left, right), np.float64)
        total, count = total + float(values.sum()), count + len(values)
    if not count:
        raise ValueError("there are no pairs of pictures: expected one or more")
    return total / count
