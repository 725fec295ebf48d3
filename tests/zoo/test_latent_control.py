"""A ControlNet in a model of latent diffusion: what it is imported from, what it changes, and what is refused."""

import compilations
import jax
import numpy as np
import pytest
import random_weights
from PIL import Image
from test_latent import CAPTIONS, NET, SIZE, compose, toy  # noqa: F401

import flaxgen
from flaxgen.cli import main
from flaxgen.family import regions
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.controlnet import ControlNet
from flaxgen.weights.controlnet import abstract_params, export_controlnet
from flaxgen.zoo.latent import drawing
from flaxgen.zoo.latent.control import check_fits, fit_hint

EDGES = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
READS = SpatialTransformer(heads=2)
LIKE = ControlNet(
    NET.clone(attention=(READS,), middle=READS, image_size=0, downsample_padding=(1, 1), time_channels=0),
    hint_widths=(4, 4, 4),
)
"""Of the toy's widths and depth; as diffusers has no net without a middle, this one has it."""


def write(net, folder, strength=1.0):
    params = jax.tree.map(lambda x: strength * x, random_weights.draw_like(abstract_params(net)))
    export_controlnet(net, params, folder)
    return folder


@pytest.fixture(scope="module")
def place(toy, tmp_path_factory):  # noqa: F811
    """An imported ControlNet, and the model composed with it."""
    root = tmp_path_factory.mktemp("control")
    write(LIKE, root / "there")
    assert main(["import", str(root / "there"), str(root / "control")]) == 0
    assert compose(root / "whole", toy, controlnet=root / "control") == 0
    return root


@pytest.fixture(scope="module")
def whole(place):
    return flaxgen.load(place / "whole")


def test_the_folder_comes_back_byte_for_byte(place, tmp_path):
    assert main(["export", str(place / "control"), str(tmp_path / "back"), "--layout", "diffusers"]) == 0
    for path in (place / "there").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_hints_and_strengths_change_the_picture_and_compile_nothing(whole, toy):  # noqa: F811
    plain = flaxgen.load(toy / "whole").draw(CAPTIONS, num=1).images
    np.testing.assert_array_equal(whole.draw(CAPTIONS, num=1).images, plain)
    drawn = [whole.draw(CAPTIONS, num=1, hint=EDGES).images]
    with compilations.counted() as seen:
        drawn += [whole.draw(CAPTIONS, num=1, hint=EDGES, hint_strength=s).images for s in (1.0, 0.5, 0.0)]
        drawn.append(whole.draw(CAPTIONS, num=1, hint=255 - EDGES).images)
    assert seen == []
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_allclose(drawn[3].astype(int), plain, atol=1)
    assert len({images.tobytes() for images in drawn}) == 4


def test_inpainting_cuts_the_hint_as_the_picture(whole, monkeypatch):
    picture, mask = np.full((32, 32, 3), 90, np.uint8), np.zeros((32, 32, 1), np.uint8)
    mask[2:10, 2:10] = 255
    hint = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    seen = []
    monkeypatch.setattr(drawing, "draw_asked", lambda parts, request, asked, *_: seen.append(asked) or picture[None])
    monkeypatch.setattr(regions.Window, "put", lambda self, *_: picture[None])
    whole.inpaint(picture, mask, caption="a", num=1, hint=hint)
    cut = regions.around(mask > 127).cut(hint, SIZE)
    assert np.abs(seen[0].controls[0].hint - cut / np.float32(255)).mean() < 0.05
    with pytest.raises(ValueError, match="the hint is 16x16 and the image 32x32"):
        whole.inpaint(picture, mask, caption="a", num=1, hint=EDGES)


def test_a_hint_is_the_middle_of_its_picture():
    tall = np.zeros((20, 8, 3), np.uint8)
    tall[6:14] = 255
    np.testing.assert_array_equal(fit_hint(tall[2:18], 4, 4), 1)
    np.testing.assert_array_equal(fit_hint(tall[6:14], 8, 8), 1)
    with pytest.raises(ValueError, match="the hint is 8x20 and the drawing 4x4"):
        fit_hint(tall, 4, 4)


BAD = {
    "no part": (["--hint"], "whole", "lacks the part 'controlnet'"),
    "strength alone": (["--hint-strength", "0.5"], "control", "give both or none"),
    "strength": (["--hint-strength", "3", "--hint"], "control", "--hint-strength 3.0: expected 0 to 2"),
    "shape": (["--width", "64", "--hint"], "control", "the hint is 16x16 and the drawing 64x16"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_end_in_one_line(name, toy, place, tmp_path, capsys):  # noqa: F811
    flags, model, said = BAD[name]
    Image.fromarray(EDGES).save(tmp_path / "edges.png")
    given = [*flags, *([str(tmp_path / "edges.png")] if flags[-1] == "--hint" else [])]
    where = toy / "whole" if model == "whole" else place / "whole"
    assert main(["draw", "a", "--model", str(where), "--out", str(tmp_path / "out.png"), *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


OTHERS = {
    "width": (LIKE.clone(unet=LIKE.unet.clone(channels=16)), r"widths=\[16\] where the denoiser has \[8\]"),
    "tokens": (LIKE.clone(unet=LIKE.unet.clone(token_dim=8)), "token_dim=8 where the denoiser has 16"),
    "latents": (LIKE.clone(unet=LIKE.unet.clone(in_channels=4)), "latents of 4 channels, and the denoiser's have 3"),
    "factor": (LIKE.clone(hint_widths=(4, 4)), "hints 2 times as large as latents"),
    "channels": (LIKE.clone(hint_channels=2), "hints of 2 channels"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_controlnet_of_another_unet_is_refused(name):
    net, said = OTHERS[name]
    check_fits(LIKE, NET, 4)
    with pytest.raises(ValueError, match=said):
        check_fits(net, NET, 4)


def test_another_controlnet_is_not_composed(toy, tmp_path, capsys):  # noqa: F811
    write(OTHERS["width"][0], tmp_path / "there")
    assert main(["import", str(tmp_path / "there"), str(tmp_path / "control")]) == 0
    assert compose(tmp_path / "whole", toy, controlnet=tmp_path / "control") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "controlnet was made for another UNet: widths=[16]" in error


def test_it_draws_nothing_by_itself(place, tmp_path, capsys):
    assert main(["draw", "a", "--model", str(place / "control"), "--out", str(tmp_path / "out.png")]) == 2
    assert "draws nothing by itself" in capsys.readouterr().err
    assert main(["info", str(place / "control")]) == 0
    assert "controlnet with a ControlNet" in capsys.readouterr().out
    assert "controlnet model" in repr(flaxgen.load(place / "control"))
