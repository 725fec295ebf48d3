import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen.data.decode import DataError
from flaxgen.data.loader import Order, batch_at, batches, element_at
from flaxgen.data.transforms import make_augment


class Numbers:
    """Element i is {"x": i, "image": noise of its own}."""

    def __init__(self, length: int = 50):
        self._images = np.random.default_rng(0).integers(0, 256, (length, 6, 6, 3), dtype=np.uint8)

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return {"x": np.int32(index), "image": self._images[index], "text": f"no {index}"}


def read(source, order, steps, start_step=0, **options):
    stream = batches(source, order, start_step=start_step, fields=("x", "image"), **options)
    taken = [next(stream) for _ in range(steps)]
    stream.close()
    return taken


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 5))
def test_every_epoch_is_a_permutation(length, seed, epoch):
    stream = [element_at(length, seed, place) for place in range(epoch * length, (epoch + 1) * length)]
    assert sorted(stream) == list(range(length))


def test_epochs_and_seeds_have_their_own_permutations():
    orders = {tuple(element_at(50, seed, epoch * 50 + i) for i in range(50)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6


def test_the_order_is_no_other_stream_of_the_seed():
    """NumPy takes (0, 0) for 0: who splits or breaks data by default_rng(0) must not meet the loader's own order."""
    order = [element_at(1000, 0, place) for place in range(100)]
    assert len(set(order) & set(np.random.default_rng(0).permutation(1000)[:100].tolist())) < 30


def test_every_element_is_equally_likely_at_a_place():
    counts = np.bincount([element_at(10, seed, 3) for seed in range(2000)], minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 33  # chi-squared of 9 degrees: 0.0001


def test_batches_run_through_epochs_without_a_gap():
    found = np.concatenate([batch["x"] for batch in read(Numbers(50), Order(3, 8), 25)])
    np.testing.assert_array_equal(found, [element_at(50, 3, place) for place in range(200)])
    np.testing.assert_array_equal(np.bincount(found), np.full(50, 4))


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_starting_later_is_reading_on(threads):
    source, order, augment = Numbers(), Order(0, 8), make_augment(4, flip=True)
    whole = read(source, order, 12, transform=augment, threads=threads)
    assert_same(whole[7:], read(source, order, 5, start_step=7, transform=augment, threads=threads))
    assert_same(whole[7:8], [batch_at(source, order, 7, fields=("x", "image"), transform=augment)])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_rows_of_one_batch(hosts):
    source, augment = Numbers(), make_augment(4, flip=True)
    shares = [read(source, Order(0, 8, host, hosts), 5, transform=augment) for host in range(hosts)]
    joined = [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in zip(*shares, strict=True)
    ]
    assert_same(joined, read(source, Order(0, 8), 5, transform=augment))


def test_augmentation_differs_from_epoch_to_epoch_and_by_seed():
    source, augment = Numbers(1), make_augment(3, flip=True)
    images = [batch["image"].tobytes() for batch in read(source, Order(0, 1), 400, transform=augment)]
    assert len(set(images)) == 32  # 16 crops, 2 flips
    other = [batch["image"].tobytes() for batch in read(source, Order(1, 1), 400, transform=augment)]
    assert images != other


def test_types():
    batch = batch_at(Numbers(), Order(0, 4), 0, fields=("x", "image", "text"))
    assert batch["x"].dtype == np.int32
    assert batch["image"].dtype == np.uint8
    assert batch["image"].shape == (4, 6, 6, 3)
    assert list(batch["text"]) == [f"no {x}" for x in batch["x"]]


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("error", [DataError("file7 is broken"), OSError("disk gone"), KeyError("x")])
def test_errors_of_the_source_reach_the_caller_as_they_are(threads, error):
    class Failing(Numbers):
        def __getitem__(self, index):
            if index == 7:
                raise error
            return super().__getitem__(index)

    with pytest.raises(type(error)) as raised:
        read(Failing(), Order(0, 10), 5, threads=threads)
    assert raised.value.args == error.args


def test_a_missing_field_is_named():
    with pytest.raises(DataError, match=r"no field 'label'.* x, image, text"):
        batch_at(Numbers(), Order(0, 4), 0, fields=("label",))


def test_uneven_shapes_say_what_to_set():
    class Uneven(Numbers):
        def __getitem__(self, index):
            return {"image": np.zeros((4 + index % 2, 4, 3), np.uint8)}

    with pytest.raises(DataError, match=r"\(4, 4, 3\) and \(5, 4, 3\).*data.image_size"):
        batch_at(Uneven(), Order(0, 50), 0, fields=("image",))


def test_bad_orders_are_refused_at_once():
    class Empty(Numbers):
        def __len__(self):
            return 0

    with pytest.raises(DataError, match="data is empty"):
        batches(Empty(), Order(0, 4), start_step=0, fields=("x",))
    with pytest.raises(DataError, match="batch_size=9 does not divide over 2 hosts"):
        batches(Numbers(), Order(0, 9, 0, 2), start_step=0, fields=("x",))
    with pytest.raises(DataError, match="host=2"):
        batches(Numbers(), Order(0, 8, 2, 2), start_step=0, fields=("x",))
