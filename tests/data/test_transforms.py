import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen.data import transforms


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_halving_is_the_mean_of_four():
    image = noise(16, 24)
    mean = image.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(transforms.resize_short_side(image, 8), mean, atol=1)  # Pillow rounds after each axis


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 40), st.integers(4, 40), st.integers(4, 40), st.sampled_from([1, 3]))
def test_resize_shape(height, width, size, channels):
    resized = transforms.resize_short_side(noise(height, width, channels), size)
    assert min(resized.shape[:2]) == size
    assert resized.shape[2] == channels
    assert max(resized.shape[:2]) == pytest.approx(max(height, width) * size / min(height, width), abs=1)


def test_resize_keeps_constants_and_leaves_the_right_size_alone():
    image = np.full((10, 14, 3), (3, 200, 77), np.uint8)
    for size in (5, 7, 23):
        resized = transforms.resize_short_side(image, size)
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
