"""Windows around what is drawn anew, and what is put back into them."""

import numpy as np
import pytest

from flaxgen.family import regions


def marked(height, width, rows, columns):
    free = np.zeros((height, width, 1), bool)
    free[slice(*rows), slice(*columns)] = True
    return free


@pytest.mark.parametrize(
    ("free", "window"),
    [
        (marked(100, 100, (40, 60), (40, 50)), (35, 30, 30)),  # 20 pixels long, and a quarter on each side
        (marked(100, 100, (0, 20), (95, 100)), (0, 70, 30)),  # in a corner
        (marked(100, 200, (5, 95), (50, 60)), (0, 5, 100)),  # no larger than the picture
        (marked(100, 200, (0, 1), (0, 1)), (0, 0, 2)),
    ],
)
def test_a_window_shows_what_is_free_and_what_is_around_it(free, window):
    assert regions.around(free) == window
    assert free[regions.around(free).place].sum() == free.sum()


def test_what_no_window_shows_is_one_line():
    with pytest.raises(ValueError, match="the mask marks nothing: expected white"):
        regions.around(marked(8, 8, (0, 0), (0, 0)))
    with pytest.raises(
        ValueError, match="the mask marks 150 pixels in a row of a 200x100 picture: expected at most 100"
    ):
        regions.around(marked(100, 200, (0, 3), (20, 170)))


def test_the_weight_fades_towards_what_stays():
    free = marked(9, 20, (0, 9), (0, 10))
    weight = regions.feathered(free, 3)[..., 0]
    np.testing.assert_allclose(weight[0], [1] * 7 + [0.75, 0.5, 0.25] + [0] * 10)  # the picture's edge is no border
    np.testing.assert_array_equal(regions.feathered(free, 0), free)


def test_a_ground_that_is_a_little_off_is_brought_to_the_pictures():
    """An object on it, even at the border, moves nothing; what is far off is as it was drawn."""
    free = marked(64, 64, (10, 50), (10, 50))
    image = np.full((64, 64, 3), (240, 230, 220), np.uint8)
    image[:5] = 0
    drawn = np.full((1, 50, 50, 3), (246, 226, 220), np.uint8)
    drawn[0, 8:20, 5:20] = (200, 0, 0)
    window = regions.Window(5, 5, 50)
    (put,) = window.put(image, drawn, free, 0)
    np.testing.assert_array_equal(put[~free[..., 0]], image[~free[..., 0]])
    np.testing.assert_array_equal(put[45, 45], image[45, 45])
    np.testing.assert_array_equal(put[20, 20], (194, 4, 0))
    (put,) = window.put(image, drawn - np.uint8(60), free, 0)
    np.testing.assert_array_equal(put[45, 45], (186, 166, 160))


def test_a_window_is_drawn_at_another_size():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    window, free = regions.Window(4, 20, 30), marked(40, 60, (6, 30), (22, 48))
    seen = window.cut(image, 16)
    assert seen.shape == (16, 16, 3)
    put = window.put(image, np.stack([seen, seen]), free, 2)
    assert put.shape == (2, 40, 60, 3)
    np.testing.assert_array_equal(put[:, ~free[..., 0]], np.stack([image, image])[:, ~free[..., 0]])


def test_a_larger_ground_frees_what_is_new_and_the_edge_that_fades_into_it():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    ground = regions.ground(image, (4, 0, 0, 3), 2)
    assert ground.image.shape == (9, 12, 3)
    np.testing.assert_array_equal(ground.image[:6, 4:], image)
    np.testing.assert_array_equal(ground.image[:6, :4], image[:, 3::-1])
    np.testing.assert_array_equal(ground.free[..., 0], ~marked(9, 12, (0, 4), (6, 12))[..., 0])
    shown, free = ground.cut(2.0, 20, 24)
    assert shown.shape == (20, 24, 3)
    np.testing.assert_array_equal(free[..., 0], ~marked(20, 24, (0, 8), (12, 24))[..., 0])


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_of_what_is_drawn_the_new_parts_and_a_fading_edge_are_taken(scale):
    image = np.full((6, 8, 3), 100, np.uint8)
    ground = regions.ground(image, (4, 0, 0, 0), 3)
    drawn = np.full((1, 16, 32, 3), 200, np.uint8)
    (put,) = ground.put(drawn, scale)
    np.testing.assert_array_equal(put[:, :4], 200)
    np.testing.assert_array_equal(put[:, 4:7, 0], [[175, 150, 125]] * 6)
    np.testing.assert_array_equal(put[:, 7:], 100)


def test_a_picture_that_would_fade_altogether_is_refused():
    image = np.zeros((6, 8, 3), np.uint8)
    assert regions.ground(image, (1, 0, 0, 0), 7).free.sum() == 9 * 6 - 6
    with pytest.raises(ValueError, match="feather=4: nothing would stay of a picture of 8x6, expected less"):
        regions.ground(image, (1, 1, 0, 0), 4)
