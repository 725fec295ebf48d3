import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import SOURCES, Data, DataError, Order, batches, open_source, random_transform, toys
from flaxgen.data.transforms import FILTERS, center_crop, resize_short_side


def test_the_config_is_plain_values():
    data = Data("folder", path="somewhere", image_size=32, flip=True)
    assert Data(**json.loads(json.dumps(dataclasses.asdict(data)))) == data


def test_toys_by_name():
    source = open_source(Data("moons", split="test", seed=3, size=100))
    assert len(source) == 100
    assert source[0]["point"].shape == (2,)


def test_digits_are_brought_to_the_size_and_channels_asked_for():
    pytest.importorskip("sklearn")
    source = open_source(Data("digits", channels=3, image_size=16))
    assert source[0]["image"].shape == (16, 16, 3)
    assert source.num_classes == 10
    plain = open_source(Data("digits", channels=1, image_size=8))[0]["image"]
    np.testing.assert_array_equal(plain, open_source(Data("digits", channels=1))[0]["image"])


@pytest.fixture
def wide(tmp_path):
    """Ten pictures of 12 x 20 pixels, brighter to the right."""
    ramp = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint8), (12, 20))
    for i in range(10):
        Image.fromarray(ramp + np.uint8(i)).save(tmp_path / f"{i}.png")
    return str(tmp_path)


def test_random_crops_and_flips_are_left_to_the_loader(wide):
    data = Data("folder", path=wide, channels=1, image_size=12, random_crop=True, flip=True)
    source = open_source(data)
    assert source[0]["image"].shape == (12, 20, 1)
    stream = batches(source, Order(0, 8), start_step=0, fields=("image",), transform=random_transform(data))
    images = np.concatenate([next(stream)["image"] for _ in range(10)]).astype(int)
    assert images.shape == (80, 12, 12, 1)
    slopes = images[:, 0, 1, 0] - images[:, 0, 0, 0]
    assert set(slopes) == {10, -10}
    assert len(set(images[slopes > 0, 0, 0, 0] // 10)) > 4


def test_center_crop_without_chance(wide):
    data = Data("folder", path=wide, channels=1, image_size=6, resize=12)
    assert random_transform(data) is None
    np.testing.assert_array_equal(open_source(data)[0]["image"][0, :, 0], np.arange(7, 13) * 10)


def test_the_filter_is_that_of_the_config(tmp_path):
    """JPEGs are decoded as a whole, but for the filter of version 0.1.0."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8))
    picture.save(tmp_path / "a.jpg", quality=95)
    decoded = np.asarray(Image.open(tmp_path / "a.jpg"))
    drafted = Image.open(tmp_path / "a.jpg")
    drafted.draft(None, (32, 32))
    for name in FILTERS:
        found = open_source(Data("folder", path=str(tmp_path), image_size=16, filter=name))[0]["image"]
        whole = np.asarray(drafted) if name == "box" else decoded
        np.testing.assert_array_equal(found, center_crop(resize_short_side(whole, 16, name), 16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "cifar"}, "data.source='cifar' is not known: use one of digits, scenes, emoji, folder"),
        ({"source": "webdataset"}, "data.path is not set: .*--set data.path=DIR"),
        ({"source": "folder", "path": "/nonesuch"}, "data.path /nonesuch does not exist"),
        ({"source": "webdataset", "path": "/nonesuch/*.tar"}, "names no .tar shard"),
        ({"source": "tfds"}, "data.name is not set"),
        ({"source": "digits", "channels": 4}, "data.channels=4"),
        ({"source": "digits", "filter": "nearest"}, "data.filter='nearest' is not known: use one of bicubic, lanczos"),
        ({"source": "digits", "image_size": -1}, "data.image_size=-1"),
        ({"source": "digits", "image_size": 16, "resize": 8}, "data.resize=8 is smaller than data.image_size=16"),
        ({"source": "digits", "random_crop": True}, "set data.image_size"),
        ({"source": "moons", "seed": -1}, "data.seed=-1"),
        ({"source": "moons", "size": 0}, "data.size=0"),
        ({"source": "moons", "size": 10**12}, "data.size=1000000000000 .1 to 1073741824."),
        ({"source": "scenes", "image_size": 16, "size": 10**30}, "data.size=10*"),
        ({"source": "moons", "max_broken": 1.5}, "data.max_broken=1.5"),
        ({"source": "moons", "threads": -1}, "data.threads=-1"),
        ({"source": "moons", "split": "dev"}, "use train or test"),
    ],
)
def test_bad_values_are_one_line(fields, message):
    with pytest.raises(DataError, match=message) as error:
        open_source(Data(**fields))
    assert "\n" not in str(error.value)


def test_what_does_not_fit_into_memory_is_one_line(monkeypatch):
    def draw(u, noise):
        raise MemoryError("Unable to allocate 29.1 TiB")

    monkeypatch.setitem(toys.TOYS, "moons", draw)
    with pytest.raises(DataError, match=r"data\.size=100 has more examples than fit into memory: use fewer"):
        open_source(Data("moons", size=100))


@pytest.mark.parametrize("source", ["folder", "webdataset", "array_record"])
def test_an_empty_folder(source, tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        open_source(Data(source, path=str(tmp_path)))


def test_the_names_are_those_documented():
    assert SOURCES == (
        "digits", "scenes", "emoji", "folder", "webdataset", "array_record", "tfds", "gaussian1d", "s_curve",
        "swiss_roll", "eight_gaussians", "moons",
    )  # fmt: skip
