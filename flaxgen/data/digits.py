"""Scikit-learn's 1,797 handwritten digits [Alpaydin98], as arrays in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaxgen.data.decode import DataError

TRAIN = 1000


class Digits:
    """Handwritten digits: `image` uint8 [8 8 1], `label` 0 .. 9. Split "train" has 1,000, "test" the other 797; every
    class has its share of both.

    Raises:
        DataError: if scikit-learn is missing, or the split is another one.
    """

    num_classes = 10
    class_names = tuple("0123456789")

    def __init__(self, split: str):
        if split not in ("train", "test"):
            raise DataError(f"data.split={split!r} of the digits is not known: use train or test")
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("the digits come with scikit-learn: pip install 'flaxgen[demo]'") from error
        images, labels = load_digits(return_X_y=True)
        order = _stratified(labels)
        chosen = order[:TRAIN] if split == "train" else order[TRAIN:]
        self._images = np.round(images[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        self._labels = labels[chosen].astype(np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self._images[index], "label": self._labels[index]}

    def name(self, index: int) -> str:
        return f"digit {index}"


def _stratified(labels: np.ndarray) -> np.ndarray:
    """A fixed shuffle in which every prefix holds each class in its proportion."""
    rng = np.random.default_rng(0)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        place[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
