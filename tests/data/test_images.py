"""What is skipped, counted, and when reading stops."""

import io
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import images
from flaxgen.data.decode import DataError
from flaxgen.data.images import Frame, Images


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), level % 256).save(file, "PNG")
    return file.getvalue()


class Files:
    """Pictures of grey level `index`; those in `broken` are cut short."""

    class_names = ("even", "odd")
    num_classes = 2

    def __init__(self, length: int, broken=()):
        self._length, self.broken, self.reads = length, set(broken), []

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        self.reads.append(index)
        data = png(index)
        return {"image": data[:30] if index in self.broken else data, "label": index % 2, "text": f"no {index}"}

    def name(self, index):
        return f"file{index}.png"


def every_twentieth(length: int = 1000) -> set[int]:
    return set(range(0, length, 20))


def test_elements():
    source = Images(Files(5), Frame(channels=3))
    example = source[3]
    assert example["image"].dtype == np.uint8
    np.testing.assert_array_equal(example["image"], np.full((4, 4, 3), 3))
    assert example["label"] == 1
    assert np.asarray(example["label"]).dtype == np.int32
    assert example["text"] == "no 3"
    assert source.num_classes == 2
    assert source.class_names == ("even", "odd")


def test_frame_resizes_and_crops():
    wide = np.repeat(np.arange(12, dtype=np.uint8)[None, :, None], 6, axis=0)

    class Arrays(Files):
        def __getitem__(self, index):
            return {"image": wide}

    assert Images(Arrays(1), Frame(1, short_side=3))[0]["image"].shape == (3, 6, 1)
    assert Images(Arrays(1), Frame(3, short_side=4, center=4))[0]["image"].shape == (4, 4, 3)
    np.testing.assert_array_equal(Images(Arrays(1), Frame(1, center=4))[0]["image"], wide[1:5, 4:8])


def test_five_percent_are_skipped_and_counted():
    source = Images(Files(1000, every_twentieth()), Frame(1))
    for index in np.random.default_rng(0).permutation(1000).tolist():
        example = source[index]
        number = int(example["text"].removeprefix("no "))
        assert number % 256 == example["image"][0, 0, 0]
        assert number % 20 != 0
        assert index in (number, *every_twentieth())
    assert set(source.broken) == every_twentieth()


def test_the_replacement_depends_on_the_index_alone():
    """Not on the order of reading, nor on what was found broken before."""
    forward, backward = (Images(Files(200, range(0, 200, 10)), Frame(1)) for _ in range(2))
    first = {i: forward[i]["text"] for i in range(200)}
    second = {i: backward[i]["text"] for i in reversed(range(200))}
    assert first == second == {i: forward[i]["text"] for i in range(200)}


def test_a_broken_element_is_decoded_once():
    stored = Files(200, {7})
    source = Images(stored, Frame(1))
    for _ in range(3):
        assert source[7]["text"] != "no 7"
    assert stored.reads.count(7) == 1


def test_broken_ones_in_a_row_do_not_stop_it():
    """One bad shard in twenty: what is broken lies together, and looking for a replacement leaves it at once."""
    source = Images(Files(1000, range(300, 350)), Frame(1))
    for index in np.random.default_rng(0).permutation(1000).tolist():
        before = len(source.broken)
        source[index]
        assert len(source.broken) <= before + 2
    assert set(source.broken) == set(range(300, 350))


def test_sixty_percent_stop_it_and_the_first_is_named():
    rng = np.random.default_rng(0)
    source = Images(Files(1000, rng.permutation(1000)[:600].tolist()), Frame(1))
    order = rng.permutation(1000).tolist()
    with pytest.raises(DataError, match=r"of the first \d+ elements are broken .* the first is file\d+.png: ") as error:
        list(map(source.__getitem__, order))
    assert "\n" not in str(error.value)
    assert images.MIN_READ <= np.count_nonzero(source._seen) < 200


@pytest.mark.parametrize("length", [1, 2, 7])
def test_small_and_all_broken(length):
    with pytest.raises(DataError, match=f"{length} of the first {length} elements are broken"):
        Images(Files(length, range(length)), Frame(1))[0]


def test_all_broken_although_all_may_be():
    with pytest.raises(DataError, match="all 7 elements are broken"):
        Images(Files(7, range(7)), Frame(1), max_broken=1.0)[0]


def test_a_missing_file_counts_as_broken():
    class Missing(Files):
        def __getitem__(self, index):
            if index == 3:
                raise FileNotFoundError(2, "No such file or directory", "file3.png")
            return super().__getitem__(index)

    source = Images(Missing(100), Frame(1))
    assert source[3]["text"] != "no 3"
    assert "No such file" in source.broken[3]


def test_the_log_names_the_first_few(caplog):
    source = Images(Files(1000, every_twentieth()), Frame(1))
    with caplog.at_level(logging.WARNING):
        for index in range(999, -1, -1):
            source[index]
    assert len(caplog.records) == images.MAX_LOGGED
    assert "file980.png" in caplog.records[0].getMessage()
    assert "in silence" in caplog.records[-1].getMessage()


def test_threads_count_each_once():
    source = Images(Files(1000, every_twentieth()), Frame(1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(source.__getitem__, np.random.default_rng(0).permutation(1000).tolist() * 2))
    assert set(source.broken) == every_twentieth()
    assert source._read == 1000


@pytest.mark.parametrize("length", [1, 2, 3, 8, 50, 1797])
def test_strides_visit_every_index(length):
    assert {i * images._stride(length) % length for i in range(length)} == set(range(length))
