import itertools

import numpy as np
import pytest
from emoji_files import is_ground, write_emoji

from flaxgen.data.emoji import EmojiPictures
from flaxgen.metrics.emoji_oracle import FILL, find_things, foreground, names_in_order
from flaxgen.scenes.emoji import Emoji, Row

COUNT = 120


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return EmojiPictures(str(write_emoji(tmp_path_factory.mktemp("emoji"))), "train", 0, COUNT, 128)


def test_the_things_of_real_renders_are_found_in_their_order(source):
    """Every stand-in has its own colour, which the middle of its lower half shows."""
    for i in range(COUNT):
        names, upright = names_in_order(source.row(i))
        views = find_things(source[i]["image"], len(names), upright, 32)
        assert views is not None
        for name, view in zip(names, views, strict=True):
            own = np.asarray(source._cuts[name])[26, 16, :3]
            assert np.abs(view[24, 16].astype(int) - own).max() <= 12


def test_a_closeup_is_filled(source):
    for i in range(20):
        names, upright = names_in_order(source.row(i))
        views = find_things(source[i]["image"], len(names), upright, 64)
        assert views is not None
        for view in views:
            dark = np.flatnonzero((~is_ground(view)).any(1))
            assert FILL * 64 - 6 <= np.ptp(dark) + 1 <= 64


def test_noise_and_uneven_ground_are_no_things(source):
    rng = np.random.default_rng(0)
    for i in range(20):
        names, upright = names_in_order(source.row(i))
        slope = np.linspace(-10, 10, 128)[:, None, None]
        noisy = np.clip(source[i]["image"] + rng.normal(0, 4, (128, 128, 3)) + slope, 0, 255).astype(np.uint8)
        assert np.mean(foreground(noisy) != foreground(source[i]["image"])) < 0.01
        assert find_things(noisy, len(names), upright, 32) is not None


def test_one_too_many_and_none(source):
    empty = np.full((128, 128, 3), 230, np.uint8)
    assert find_things(empty, 1, False, 32) is None
    for i in range(COUNT):
        names, upright = names_in_order(source.row(i))
        if len(names) < 3:
            assert find_things(source[i]["image"], len(names) + 1, upright, 32) is None


def test_names_in_order():
    cat, dog = Emoji("cat", "small"), Emoji("dog")
    assert names_in_order(Row((cat,))) == (("cat",), False)
    for relation, upright, turned in zip(
        ("left of", "right of", "above", "below"), (False, False, True, True), itertools.cycle((False, True))
    ):  # fmt: skip
        assert names_in_order(Row((cat, dog), relation)) == (("dog", "cat") if turned else ("cat", "dog"), upright)


def test_refuses_what_is_no_square():
    with pytest.raises(ValueError, match=r"a picture of shape \(64, 32, 3\): expected a square of 32 pixels or more"):
        find_things(np.zeros((64, 32, 3), np.uint8), 1, False, 32)
