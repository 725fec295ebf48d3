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


def test_a_picture_becomes_larger_by_a_factor_that_need_not_be_whole(whole):  # noqa: F811
    drawn = whole.upscale(PICTURE, caption="a red circle", factor=1.5, num=2).images
    assert drawn.shape == (2, 24, 30, 3)
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[:1], whole.upscale(PICTURE, caption="a red circle", factor=1.5, num=1).images)


def test_little_strength_keeps_what_was_enlarged(whole):  # noqa: F811
    """In pixels the enlarged picture as the autoencoder gives it back."""
    parts, pixels = whole.whole, np.asarray(Image.fromarray(PICTURE).resize((40, 32), Image.Resampling.LANCZOS))
    kept = parts.decode(parts.encode(pixels[None]))
    near, far = (
        whole.upscale(PICTURE, factor=2.0, strength=strength, steps=50, through="pixels").images
        for strength in (0.02, 1.0)
    )
    distance = [np.abs(images.astype(int) - kept).mean() for images in (near, far)]
    assert distance[0] < distance[1] / 2


def test_tiles_are_blended_at_every_step_and_numbers_compile_nothing(whole):  # noqa: F811
    """What the net makes of a tile depends on the tile alone: the picture differs from the one drawn at once, and not
    where the tiles meet more than elsewhere."""
    at_once = whole.upscale(PICTURE, factor=2.0, strength=0.5, steps=10).images.astype(int)
    tiled = whole.upscale(PICTURE, factor=2.0, strength=0.5, steps=10, tile=16).images.astype(int)
    assert at_once.shape == tiled.shape == (1, 32, 40, 3)
    assert 0 < np.abs(at_once - tiled).mean() < np.abs(at_once - at_once[:, ::-1]).mean()
    with compilations.counted() as seen:
        whole.upscale(
            PICTURE, factor=2.0, strength=0.9, steps=20, guidance=4.0, tile=16, seed=3, caption="a red circle"
        )
    assert seen == []


UNFIT = {
    "large": (
        {"factor": 8.0, "image": np.zeros((8, 2000, 3), np.uint8)},
        "a picture of 16000x64: expected at most 8192",
    ),
    "tile": ({"tile": 16, "hint": PICTURE}, "tile=16 and hint do not go together"),
    "hint": ({"hint": PICTURE[:8]}, "the hint is 20x8 and the image 20x16"),
    "factor": ({"factor": 1.0}, "a number above 1, at most 8"),
    "through": ({"through": "pixel"}, "did you mean pixels"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_upscaled_is_named(name, whole):  # noqa: F811
    given, said = UNFIT[name]
    with pytest.raises(ValueError, match=said):
        whole.upscale(**{"image": PICTURE, **given})
