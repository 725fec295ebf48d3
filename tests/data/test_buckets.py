"""Sizes of about one area, which of them a picture is brought to, and batches that hold one each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_loader import assert_same

from flaxgen.data import Data, DataError, Groups, Order, batch_at, batches, bucket_sizes, open_source
from flaxgen.data.buckets import nearest_bucket
from flaxgen.data.transforms import cover

KINDS = np.repeat([0, 1, 2], [3, 30, 17])


class Kinds:
    """Element i is {"x": i}, of the kind KINDS[i]."""

    def __init__(self):
        self.groups = Groups(np.random.default_rng(0).permutation(KINDS))

    def __len__(self):
        return len(KINDS)

    def __getitem__(self, index):
        return {"x": np.int32(index)}


def test_sizes_are_those_that_were_described():
    """Of 512 pixels: 256 x 1024, 512 x 512 and what lies between [NovelAI22, by hand]."""
    sizes = bucket_sizes(512)
    assert {(256, 1024), (320, 768), (384, 640), (448, 576), (512, 512), (640, 384), (1024, 256)} <= set(sizes)
    assert all(height * width <= 512**2 and height % 64 == width % 64 == 0 for height, width in sizes)
    assert {(width, height) for height, width in sizes} == set(sizes)
    with pytest.raises(ValueError, match="a multiple of twice the step"):
        bucket_sizes(500)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_no_bucket_is_nearer_than_the_nearest(height, width):
    sizes = bucket_sizes(512)
    ratio, (rows, columns) = height / width, sizes[nearest_bucket(height, width, sizes)]
    distance = max(rows / columns / ratio, ratio / (rows / columns))
    assert all(distance <= max(h / w / ratio, ratio / (h / w)) * (1 + 1e-9) for h, w in sizes)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.integers(1, 90))
def test_a_picture_fills_its_size_and_is_cut_on_one_axis(height, width):
    image = np.full((height, width, 3), 7, np.uint8)
    filled, (top, left) = cover(image, 24, 32)
    assert filled.shape == (24, 32, 3)
    assert (filled == 7).all()
    assert top == 0 or left == 0
    scale = max(24 / height, 32 / width)
    assert (top, left) == ((max(24, round(height * scale)) - 24) // 2, (max(32, round(width * scale)) - 32) // 2)


def steps_of(source, steps, start=0, batch_size=8, **options):
    stream = batches(source, Order(3, batch_size), start_step=start, fields=("x",), **options)
    taken = [next(stream) for _ in range(steps)]
    stream.close()
    return taken


def test_a_batch_is_of_one_kind_and_kinds_have_their_share():
    source = Kinds()
    found = [source.groups.kinds[batch["x"]] for batch in steps_of(source, len(source), threads=0)]
    assert all(len(set(kinds)) == 1 for kinds in found)
    np.testing.assert_array_equal(np.bincount([kinds[0] for kinds in found]), np.bincount(KINDS))


def test_all_examples_are_seen_as_often():
    source = Kinds()
    for start in (0, len(source)):
        found = np.concatenate([batch["x"] for batch in steps_of(source, len(source), start, threads=0)])
        np.testing.assert_array_equal(np.bincount(found), np.full(len(source), 8))


def test_every_kind_comes_first_as_often_as_it_has_examples():
    groups = Kinds().groups
    first = np.bincount([groups.kinds[groups.elements(seed, 0, 1, range(1))[0]] for seed in range(2000)])
    expected = 2000 * np.bincount(KINDS) / len(KINDS)
    assert ((first - expected) ** 2 / expected).sum() < 18.4  # chi-squared of 2 degrees: 0.0001


@pytest.mark.parametrize("threads", [0, 4])
def test_starting_later_is_reading_on(threads):
    whole = steps_of(Kinds(), 120, threads=threads)
    assert_same(whole[70:], steps_of(Kinds(), 50, start=70, threads=threads))
    assert_same(whole[7:8], [batch_at(Kinds(), Order(3, 8), 7, fields=("x",))])


def test_hosts_share_the_rows_of_one_batch():
    for step in (0, 9, 77):
        shares = [batch_at(Kinds(), Order(3, 8, host, 4), step, fields=("x",))["x"] for host in range(4)]
        np.testing.assert_array_equal(np.concatenate(shares), batch_at(Kinds(), Order(3, 8), step, fields=("x",))["x"])


def test_pictures_come_in_their_buckets_and_say_where_they_were(tmp_path):
    for name, (height, width) in {"a": (40, 80), "b": (90, 30), "c": (32, 32)}.items():
        Image.new("RGB", (width, height)).save(tmp_path / f"{name}.png")
    data = Data(source="folder", path=str(tmp_path), image_size=32)
    found = list(map(open_source(data, ((32, 32), (24, 40), (40, 24))).__getitem__, range(3)))
    assert [int(example["bucket"]) for example in found] == [1, 2, 0]
    assert [example["image"].shape[:2] for example in found] == [(24, 40), (40, 24), (32, 32)]
    origins = [(40, 80, 0, 4), (90, 30, 16, 0), (32, 32, 0, 0)]
    assert [tuple(example["origin"]) for example in found] == origins
    with pytest.raises(DataError, match="buckets are for pictures"):
        open_source(Data(source="moons"), ((32, 32),))
