import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flaxgen.data import transforms
from flaxgen.data.decode import BrokenImage


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("method", ["box", "adm"])
def test_halving_is_the_mean_of_four(method):
    image = noise(16, 24)
    mean = image.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    # Pillow rounds after each axis
    np.testing.assert_allclose(transforms.resize_short_side(image, 8, method), mean, atol=1)


def sine(size: int, frequency: float) -> np.ndarray:
    """Of so many cycles a pixel, from left to right."""
    wave = 127.5 + 120 * np.sin(2 * np.pi * frequency * (np.arange(size) + 0.5))
    return np.broadcast_to(np.round(wave).astype(np.uint8)[None, :, None], (size, size, 1))


def distortion(method: str, size: int, into: int, frequency: float) -> float:
    """What a resized sine has beside the sine that it should be, in shares of that, away from the border."""
    resized = transforms.resize_short_side(sine(size, frequency), into, method)[into // 2, :, 0].astype(float)
    phase = 2 * np.pi * frequency * size / into * (np.arange(into) + 0.5)
    waves = np.stack([np.sin(phase), np.cos(phase), np.ones(into)], axis=1)
    fitted, *_ = np.linalg.lstsq(waves, resized, rcond=None)
    beside = (resized - waves @ fitted)[4:-4]
    return float(beside.std() / np.hypot(*fitted[:2]) * np.sqrt(2))


@pytest.mark.parametrize("method", ["bicubic", "lanczos", "adm"])
def test_a_sine_stays_a_sine(method):
    assert distortion(method, 70, 64, 0.15) < 0.015
    assert distortion("box", 70, 64, 0.15) > 0.15


@pytest.mark.parametrize("method", ["bicubic", "lanczos"])
@pytest.mark.parametrize("into", [64, 50, 17])
def test_what_is_too_fine_becomes_grey_and_no_other_pattern(method, into):
    fine = sine(128, 0.45)
    left = transforms.resize_short_side(fine, into, method)[into // 2, 2:-2, 0].std() / fine.std()
    assert left < 0.02
    assert transforms.resize_short_side(fine, 64, "box")[32, 5:-5, 0].std() / fine.std() > 0.1


def test_the_default_is_the_filter_of_clean_fid():
    """clean-fid resizes each channel in floating point."""
    image = noise(60, 80)
    channels = [Image.fromarray(image[..., i].astype(np.float32)) for i in range(3)]
    resized = [np.asarray(channel.resize((40, 30), Image.Resampling.BICUBIC)) for channel in channels]
    expected = np.clip(np.round(np.stack(resized, axis=-1)), 0, 255)
    np.testing.assert_allclose(transforms.resize_short_side(image, 30), expected, atol=1)


def test_adm_halves_first():
    image = noise(70, 50)
    halved = Image.fromarray(image).resize((25, 35), Image.Resampling.BOX)
    expected = np.asarray(halved.resize((16, 22), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(transforms.resize_short_side(image, 16, "adm"), expected)


def test_a_line_does_not_become_a_huge_picture():
    with pytest.raises(BrokenImage, match="100000x1 pixels, too narrow to become 6400000x64"):
        transforms.resize_short_side(np.zeros((1, 100000, 3), np.uint8), 64)


@settings(deadline=None, max_examples=30)
@given(*[st.integers(4, 40)] * 3, st.sampled_from([1, 3]), st.sampled_from(transforms.FILTERS))
def test_resize_shape(height, width, size, channels, method):
    resized = transforms.resize_short_side(noise(height, width, channels), size, method)
    assert min(resized.shape[:2]) == size
    assert resized.shape[2] == channels
    assert max(resized.shape[:2]) == pytest.approx(max(height, width) * size / min(height, width), abs=1)


def test_resize_keeps_constants_and_leaves_the_right_size_alone():
    image = np.full((10, 14, 3), (3, 200, 77), np.uint8)
    for size, method in itertools.product((5, 7, 23), transforms.FILTERS):
        resized = transforms.resize_short_side(image, size, method)
        np.testing.assert_array_equal(resized, np.broadcast_to(image[0, 0], resized.shape))
    assert transforms.resize_short_side(image, 10) is image


def test_center_crop():
    image = noise(6, 9)
    np.testing.assert_array_equal(transforms.center_crop(image, 4), image[1:5, 2:6])


def test_random_crop_reaches_every_place_equally():
    height, width, size = 5, 6, 4
    image = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
    rng = np.random.default_rng(0)
    corners = [int(transforms.random_crop(image, size, rng)[0, 0, 0]) for _ in range(1200)]
    values, counts = np.unique(corners, return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2, 6, 7, 8])
    assert counts.min() > 200 - 5 * np.sqrt(200)


def test_flip_mirrors_half_of_them():
    image = noise(3, 5)
    rng = np.random.default_rng(0)
    mirrored = 0
    for _ in range(400):
        out = transforms.random_flip(image, rng)
        same = np.array_equal(out, image)
        assert same or np.array_equal(out, image[:, ::-1])
        mirrored += not same
    assert abs(mirrored - 200) < 50  # five standard deviations


def test_augment_is_a_function_of_the_generator():
    augment = transforms.make_augment(4, flip=True)
    assert augment is not None
    example = {"image": noise(9, 9), "label": np.int32(3)}
    first, second = (augment(example, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first["image"], second["image"])
    assert first["image"].shape == (4, 4, 3)
    assert first["label"] == 3
    np.testing.assert_array_equal(example["image"], noise(9, 9))
    assert transforms.make_augment(0, flip=False) is None
