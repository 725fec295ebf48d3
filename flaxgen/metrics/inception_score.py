"""The Inception Score [Salimans16], streamed: what is kept of the pictures is a sum a class and split."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float64, Int


class ClassSums(NamedTuple):
    """Of the pictures of each split: how many, the sum of their class probabilities p, and that of sum_c p log p."""

    count: Int[np.ndarray, " S"]
    probability: Float64[np.ndarray, "S C"]
    negative_entropy: Float64[np.ndarray, " S"]


class InceptionScore(NamedTuple):
    """Mean over the splits, and their standard deviation; from 1 to the number of classes."""

    mean: float
    std: float


def empty(splits: int, classes: int) -> ClassSums:
    """Of no pictures: what adding starts from."""
    return ClassSums(np.zeros(splits, np.int64), np.zeros((splits, classes)), np.zeros(splits))


def assign_splits(num: int, splits: int, seed: int | None) -> Int[np.ndarray, " N"]:
    """The split of each of `num` pictures, sizes equal within one: shuffled by the seed, or in runs where it is None.

    Runs are right only for pictures in no order: the score of a run of one class is 1.

    Raises:
        ValueError: unless there are 1 to `num` splits.
    """
    if not 1 <= splits <= num:
        raise ValueError(f"splits={splits}: expected 1 to {num}, the number of pictures")
    runs = np.repeat(np.arange(splits), np.diff([i * num // splits for i in range(splits + 1)]))
    return runs if seed is None else np.random.default_rng(seed).permutation(runs)


def add(sums: ClassSums, logits: Float[Array | np.ndarray, "N C"], split: Int[np.ndarray, " N"]) -> ClassSums:
    """The sums with N pictures more, each to its split; in float64.

    Raises:
        ValueError: if there are other classes than before.
        FloatingPointError: if a logit is not finite.
    """
    splits, classes = sums.probability.shape
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(f"expected logits [N {classes}], got {logits.shape}")
    rows = np.asarray(logits, np.float64)
    if not np.isfinite(rows).all():
        raise FloatingPointError("the class logits are not finite")
    shifted = rows - rows.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p, member = np.exp(log_p), np.equal(split[None], np.arange(splits)[:, None]).astype(np.float64)
    return ClassSums(
        sums.count + member.sum(axis=1).astype(np.int64),
        sums.probability + member @ p,
        sums.negative_entropy + member @ (p * log_p).sum(axis=1),
    )


def inception_score(sums: ClassSums) -> InceptionScore:
    """exp of the mean of KL(p(y | x) || p(y)) in each split [Salimans16, sec. 4].

    Raises:
        ValueError: if a split has no pictures.
    """
    if not sums.count.all():
        none = int((sums.count == 0).sum())
        raise ValueError(f"{none} of {len(sums.count)} splits have no picture: use fewer splits")
    marginal = sums.probability / sums.count[:, None]
    log_marginal = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
    scores = np.exp(sums.negative_entropy / sums.count - (marginal * log_marginal).sum(axis=1))
    return InceptionScore(float(scores.mean()), float(scores.std()))
