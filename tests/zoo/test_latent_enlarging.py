"""Larger pictures from given ones by a model of latent diffusion."""

import compilations
import numpy as np
import pytest
from PIL import Image
from test_latent import SIZE, compose, toy, whole  # noqa: F401

from flaxgen.cli import main

PICTURE = np.random.default_rng(3).integers(0, 256, (SIZE, 20, 3), np.uint8)


def test_what_lies_around_a_picture_is_drawn_and_the_picture_stays(whole):  # noqa: F811
    drawn = whole.outpaint(PICTURE, "a red circle", left=6, bottom=5, feather=2, num=2).images
    assert drawn.shape == (2, SIZE + 5, 26, 3)
    np.testing.assert_array_equal(drawn[:, : SIZE - 2, 8:], np.stack([PICTURE[:-2, 2:]] * 2))
    assert (drawn[0, :, :6] != drawn[1, :, :6]).mean() > 0.5
    assert (drawn[0, SIZE:] != drawn[1, SIZE:]).mean() > 0.5


def test_other_margins_of_the_same_size_compile_nothing(whole):  # noqa: F811
    whole.outpaint(PICTURE, "a red circle", left=6, bottom=5, num=2, feather=2)
    with compilations.counted() as seen:
        whole.outpaint(PICTURE, "a blue square", right=6, top=5, num=2, feather=1, steps=7, guidance=3.0, seed=4)
    assert seen == []


@pytest.mark.parametrize(("size", "drawn_at"), [((8, 8), (16, 16)), ((21, 39), (24, 40)), ((80, 160), (32, 64))])
def test_a_ground_is_drawn_at_sizes_that_the_net_knows(size, drawn_at, whole, monkeypatch):  # noqa: F811
    """Here one to two times 16 pixels; as the net wants multiples of 4, a little more is drawn, and cut off."""
    seen = []

    def draw(parts, request, asked, numbers, progress, start):
        seen.append([side * parts.factor for side in start.known["latent"].shape[1:3]])
        return np.zeros((len(numbers), *seen[-1], 3), np.uint8)

    monkeypatch.setattr("flaxgen.zoo.latent.enlarging.draw_asked", draw)
    picture = np.full((size[0], size[1] - 2, 3), 90, np.uint8)
    assert whole.outpaint(picture, "a", right=2, feather=1, num=1).images.shape == (1, *size, 3)
    assert seen == [list(drawn_at)]


def test_a_hint_is_of_the_larger_picture(whole):  # noqa: F811
    with pytest.raises(ValueError, match="the hint is 20x16 and the larger picture 24x16: expected one size"):
        whole.outpaint(PICTURE, "a", left=4, hint=PICTURE)


BAD = {
    "nothing": ([], "nothing is added: give --left, --right, --top or --bottom"),
    "feather": (["--left", "4", "--feather", "20"], "feather=20: nothing would stay of a picture of 20x16"),
    "negative": (["--left", "-4"], "--left -4: expected 0 to 8192"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_end_in_one_line(name, toy, tmp_path, capsys):  # noqa: F811
    flags, said = BAD[name]
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    given = ["outpaint", str(tmp_path / "a.png"), "a", "--model", str(toy / "whole"), "--out", str(tmp_path / "b.png")]
    assert main([*given, *flags]) == 2
    assert said in capsys.readouterr().err
