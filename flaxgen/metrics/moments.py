"""Mean and covariance of a stream of features, in float64 on the host, and in any order of merging [Chan83].

JAX computes in float32 unless told otherwise, and there sums of squares lose what FID lives of: for features of mean
1000 and standard deviation 0.1, E[x^2] - E[x]^2 has no digit of the variance left. 64 features of 2048 are half a
megabyte and their outer products 16, so it is the features that come to the host, and all sums are taken there, those
of each batch about its own mean: a tenth of a second a batch of 64 on two busy cores, where the Inception net takes
seconds.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float64


class Moments(NamedTuple):
    """What is known of `count` features: their mean, and the sum of the outer products of their deviations from it.

    They take 8 D^2 bytes, however many features there were.
    """

    count: int
    mean: Float64[np.ndarray, " D"]
    outer: Float64[np.ndarray, "D D"]


def empty(width: int) -> Moments:
    """Of no features: what merging starts from."""
    return Moments(0, np.zeros(width), np.zeros((width, width)))


def add(moments: Moments, features: Float[Array | np.ndarray, "N D"]) -> Moments:
    """The moments with N features more.

    Raises:
        ValueError: if the features are not [N D] of this width.
        FloatingPointError: if one is not finite.
    """
    if features.ndim != 2 or features.shape[1] != len(moments.mean):
        raise ValueError(f"moments of width {len(moments.mean)} take features [N {len(moments.mean)}], "
                         f"got {features.shape}")  # fmt: skip
    if not len(features):
        return moments
    rows = np.asarray(features, np.float64)
    mean = rows.mean(axis=0)
    if not np.isfinite(mean).all():
        (bad,) = np.nonzero(~np.isfinite(rows).all(axis=1))
        raise FloatingPointError(f"{len(bad)} of {len(rows)} features are not finite, the first is number {bad[0]}")
    return _joined(moments, len(rows), mean, rows - mean[None])


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both streams [Chan83, eq. 2.1]; associative and commutative up to rounding.

    Raises:
        ValueError: if the widths differ.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"moments of width {len(a.mean)} and {len(b.mean)} are of different features")
    merged = _joined(a, b.count, b.mean, np.zeros((0, len(b.mean))))
    return merged._replace(outer=merged.outer + b.outer)


def of(batches: Iterable[Float[Array | np.ndarray, "_ D"]]) -> Moments:
    """The moments of all rows of all batches.

    Raises:
        ValueError: if there is no batch, or as `add`.
        FloatingPointError: if a feature is not finite.
    """
    moments = None
    for batch in batches:
        moments = add(empty(batch.shape[-1]) if moments is None else moments, batch)
    if moments is None:
        raise ValueError("there are no features: expected one batch or more")
    return moments


def covariance(moments: Moments) -> Float64[np.ndarray, "D D"]:
    """The unbiased sample covariance.

    Raises:
        ValueError: if there are fewer than 2 features.
    """
    if moments.count < 2:
        raise ValueError(f"a covariance needs 2 or more pictures, got {moments.count}")
    return moments.outer / (moments.count - 1)


def _joined(moments: Moments, count: int, mean: np.ndarray, deviations: np.ndarray) -> Moments:
    """`moments` and `count` more of this mean; the step between the two means is one more deviation."""
    total = moments.count + count
    step = mean - moments.mean
    weight = moments.count * count / max(total, 1)
    rows = np.concatenate([deviations, np.sqrt(weight) * step[None]])
    share = count / max(total, 1)
    return Moments(total, moments.mean + share * step, moments.outer + rows.T @ rows)
