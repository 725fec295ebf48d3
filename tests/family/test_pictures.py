"""Pictures as a value: what is saved is what was drawn, knows how, and overwrites nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from flaxgen.family import sheets
from flaxgen.family.pictures import Pictures, read_about, unused

RNG = np.random.default_rng(0)
ABOUT = {"request": {"verb": "draw", "captions": ["красный круг", "\udcff"]}, "weights": "abc"}


def pictures(count=3, channels=3, **more):
    return Pictures(RNG.integers(0, 256, (count, 8, 8, channels), dtype=np.uint8), about=ABOUT, **more)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_picture_is_saved_as_it_is(channels, tmp_path):
    drawn = pictures(1, channels)
    assert drawn.save(tmp_path / "out.png") == tmp_path / "out.png"
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(8, 8, channels), drawn.images[0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_several_are_a_sheet_and_a_folder_and_know_how_they_were_made(suffix, tmp_path):
    drawn = pictures(scores=(0.1, 0.2, 0.3))
    out = drawn.save(tmp_path / f"out{suffix}")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{i:03d}{suffix}" for i in range(3)]
    assert read_about(out) == json.loads(json.dumps(ABOUT).encode("utf-8", "replace"))
    assert read_about(tmp_path / "out" / f"002{suffix}") == {**read_about(out), "picture": 2, "of": 3, "score": 0.3}


def test_what_is_there_is_left_alone(tmp_path):
    first, second = pictures(1), pictures(1)
    first.save(tmp_path / "out.png")
    before = (tmp_path / "out.png").read_bytes()
    assert second.save(tmp_path / "out.png") == tmp_path / "out-1.png"
    assert second.save(tmp_path / "out.png") == tmp_path / "out-2.png"
    assert (tmp_path / "out.png").read_bytes() == before
    assert second.save(tmp_path / "out.png", force=True) == tmp_path / "out.png"
    assert (tmp_path / "out.png").read_bytes() != before
    (tmp_path / "sheet").mkdir()
    assert unused(tmp_path / "sheet.png") == tmp_path / "sheet-1.png", "its folder of single pictures would be there"


def test_a_folder_a_film_and_arrays(tmp_path):
    drawn = pictures(4, layout="film", fps=10.0)
    drawn.save(tmp_path / "folder")
    assert len(list((tmp_path / "folder").iterdir())) == 4
    drawn.save(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4
        assert film.info["duration"] == 100
    drawn.save(tmp_path / "arrays.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "arrays.npz")["samples"], drawn.arrays)
    with pytest.raises(ValueError, match=r"out\.bmp: expected a name that ends in \.png"):
        drawn.save(tmp_path / "out.bmp")


def test_they_index_like_a_list_and_show_themselves():
    drawn = pictures(scores=(0.1, 0.2, 0.3))
    assert [len(drawn), len(drawn[1]), len(drawn[1:])] == [3, 1, 2]
    np.testing.assert_array_equal(drawn[-1].images[0], drawn.images[2])
    assert drawn[-1].scores == (0.3,)
    assert len(list(drawn)) == 3
    assert np.asarray(drawn).shape == (3, 8, 8, 3)
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert '<img src="data:image/png;base64,' in drawn._repr_html_()
    assert repr(drawn) == "3 pictures of 8x8x3"


def test_points_are_plotted(tmp_path):
    points = Pictures(RNG.normal(size=(20, 2)).astype(np.float32), about=ABOUT)
    assert points.are_points
    assert points.sheet().ndim == 3
    points.save(tmp_path / "out.png")
    assert not (tmp_path / "out").exists()
    assert read_about(tmp_path / "out.png")["weights"] == "abc"


def test_a_caption_gets_a_font_that_has_its_letters_or_none():
    images = np.zeros((2, 64, 64, 3), np.uint8)
    plain = sheets.grid(images[:1])
    for caption, labelled in (("a red circle", True), ("красный круг", True), ("赤い丸", False)):
        sheet = sheets.captioned(images, [caption, "x"])
        assert (sheet.shape[0] - 2 * plain.shape[0]) // (2 * sheets.CAPTION_SIZE) == 1 + labelled


def test_a_picture_that_says_nothing_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="does not say how it was made"):
        read_about(tmp_path / "plain.png")


@pytest.mark.parametrize(
    ("shape", "scale"), [((8, 8), 8), ((8, 24), 8), ((24, 8), 8), ((8, 64), 4), ((64, 64), 1), ((4, 999), 1)]
)
def test_small_pictures_are_enlarged_by_their_shorter_side(shape, scale):
    drawn = sheets.grid(np.zeros((1, *shape, 1), np.uint8), gap=0)
    assert drawn.shape[:2] == (scale * shape[0], scale * shape[1])
