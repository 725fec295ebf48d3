import numpy as np
import pytest

from flaxgen.metrics import inception_score as scores
from flaxgen.metrics.inception_score import add, assign_splits, empty, inception_score

RNG = np.random.default_rng(0)


def of(logits: np.ndarray, splits: np.ndarray, batch: int = 1000):
    sums = empty(int(splits.max()) + 1, logits.shape[1])
    for i in range(0, len(logits), batch):
        sums = add(sums, logits[i : i + batch], splits[i : i + batch])
    return sums


def by_definition(logits: np.ndarray) -> float:
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()))


def test_by_definition_in_each_split():
    logits = RNG.normal(size=(103, 7)).astype(np.float32)
    expected = [by_definition(part.astype(float)) for part in np.split(logits, [25, 51, 77])]
    found = inception_score(of(logits, assign_splits(103, 4, None)))
    np.testing.assert_allclose(found, (np.mean(expected), np.std(expected)), rtol=1e-10)


def test_batches_do_not_show():
    logits, splits = RNG.normal(size=(50, 5)).astype(np.float32), assign_splits(50, 3, 0)
    np.testing.assert_allclose(inception_score(of(logits, splits, 8)), inception_score(of(logits, splits)), rtol=1e-12)


def test_extremes():
    """Sure and all classes alike: the number of classes; always unsure, or always sure of one class: 1."""
    sure = 200 * np.eye(10, dtype=np.float32)[np.arange(100) % 10]
    one_split = assign_splits(100, 1, None)
    assert inception_score(of(sure, one_split)).mean == pytest.approx(10)
    assert inception_score(of(np.zeros((100, 10), np.float32), one_split)).mean == pytest.approx(1)
    assert inception_score(of(sure[:1].repeat(100, 0), one_split)).mean == pytest.approx(1)


def test_sorted_pictures_need_the_shuffle():
    """Ten classes in ten runs: each run has one class only."""
    logits = 200 * np.eye(10, dtype=np.float32)[np.arange(1000) // 100]
    assert inception_score(of(logits, assign_splits(1000, 10, None))).mean == pytest.approx(1)
    assert inception_score(of(logits, assign_splits(1000, 10, seed=0))).mean > 9


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    assert inception_score(of(logits, assign_splits(2, 1, None))).mean == pytest.approx(2)


def test_splits_are_even_and_follow_from_the_seed():
    splits = assign_splits(103, 10, seed=3)
    assert set(np.bincount(splits)) == {10, 11}
    np.testing.assert_array_equal(splits, assign_splits(103, 10, seed=3))
    assert (splits != assign_splits(103, 10, seed=4)).any()


def test_bad_input():
    with pytest.raises(ValueError, match="splits=11: expected 1 to 10"):
        assign_splits(10, 11, 0)
    with pytest.raises(ValueError, match=r"expected logits \[N 5\], got \(2, 4\)"):
        add(empty(1, 5), np.zeros((2, 4), np.float32), np.zeros(2, int))
    with pytest.raises(FloatingPointError, match="not finite"):
        add(empty(1, 2), np.full((1, 2), np.nan, np.float32), np.zeros(1, int))
    with pytest.raises(ValueError, match="2 of 2 splits have no picture"):
        inception_score(scores.empty(2, 3))
