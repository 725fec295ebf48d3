import sys

import numpy as np
import pytest

from flaxgen.data.digits import DataError, Digits

datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def splits():
    return {split: Digits(split) for split in ("train", "test")}


def test_the_splits_share_out_every_digit_once(splits):
    assert [len(splits[split]) for split in ("train", "test")] == [1000, 797]
    images, labels = datasets.load_digits(return_X_y=True)
    expected = sorted(
        (int(label), *np.round(image * 255 / 16).astype(int)) for image, label in zip(images, labels, strict=True)
    )
    found = sorted(
        (int(source[i]["label"]), *source[i]["image"].ravel().astype(int))
        for source in splits.values()
        for i in range(len(source))
    )
    assert found == expected


def test_elements(splits):
    example = splits["train"][0]
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert max(splits["train"][i]["image"].max() for i in range(1000)) == 255


def test_every_class_has_its_share_of_both(splits):
    _, labels = datasets.load_digits(return_X_y=True)
    for source in splits.values():
        counts = np.bincount([source[i]["label"] for i in range(len(source))])
        np.testing.assert_allclose(counts, np.bincount(labels) * len(source) / 1797, atol=5)


def test_twice_the_same(splits):
    again = Digits("test")
    np.testing.assert_array_equal(again[5]["image"], splits["test"][5]["image"])


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'flaxgen\[demo\]'"):
        Digits("train")


def test_unknown_split():
    with pytest.raises(DataError, match="use train or test"):
        Digits("validation")
