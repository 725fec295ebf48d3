"""interpolate and project as a user meets them: what is wrong is one line and exit code 2."""

import gan_toy
import jax
import numpy as np
import pytest
import random_weights
from PIL import Image
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.data.tokenize import train_bpe
from flaxgen.family import sheets
from flaxgen.family.pictures import read_about
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.verbs import load
from flaxgen.zoo import classifier, clip
from flaxgen.zoo.gan import latents


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model directories by their kinds, that of a classifier among them, and two pictures."""
    folder = tmp_path_factory.mktemp("models")
    for name in gan_toy.CONFIGS:
        model = gan_toy.make_model(name, parallel.make_plan("jit"))
        write_model(folder / name, model.config, model.params, model.step)
    net = NoisyClassifier(num_classes=3, image_size=8, in_channels=1, channels=8, multipliers=(1,), depth=1,
                          attention_resolutions=(), head_channels=8, norm_groups=4)  # fmt: skip
    config = classifier.Config(seed=0, steps=1, batch_size=4, data=Data("digits", image_size=8, channels=1), net=net)
    write_model(folder / "guide", config, random_weights.draw_like(verbs.family_of(config).abstract_params(config)), 1)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(folder / "image.png")
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.mark.parametrize("once", [False, True])
def test_interpolate_writes_a_film_between_samples(folder, tmp_path, capsys, once):
    out = tmp_path / "deep" / "walk.gif"
    walk = ["interpolate", str(folder / "style"), "--between", "2", "0", "--frames", "10", "--seed", "3"]
    assert main([*walk, "--fps", "10", *(["--once"] if once else []), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote {out}: 10 pictures of 8x8, interpolate, seed 3\n"
    samples = load(folder / "style").generate(jax.random.key(3), 3)
    with Image.open(out) as film:
        assert film.n_frames == 10
        assert film.info["duration"] == 100
        assert film.info["loop"] == 0
        first = np.asarray(film.convert("RGB"), int)
        film.seek(9)
        last = np.asarray(film.convert("RGB"), int)
    assert first.shape == (64, 64, 3)
    assert np.abs(first - sheets.grid(samples[2:], gap=0)).mean() < 3  # a palette of 256 colours
    assert (np.abs(last - sheets.grid(samples[:1], gap=0)).mean() < 3) == once


def test_interpolate_writes_sheets_and_arrays(folder, tmp_path):
    walk = ["interpolate", str(folder / "mlp"), "--class", "1", "--between", "0", "1", "--frames", "4"]
    assert main([*walk, "--out", str(tmp_path / "walk.npz")]) == 0
    drawn = np.load(tmp_path / "walk.npz")["samples"]
    assert drawn.shape == (4, 8, 8, 1)
    assert main([*walk, "--out", str(tmp_path / "walk.png")]) == 0
    assert read_about(tmp_path / "walk.png")["request"]["between"] == [0, 1]
    with Image.open(tmp_path / "walk.png") as sheet:
        np.testing.assert_array_equal(np.asarray(sheet), sheets.grid(drawn))


def test_project_writes_both_pictures_and_the_latent(folder, tmp_path, capsys):
    """The latent that it writes draws the picture that it shows."""
    out = tmp_path / "found.png"
    project = ["project", str(folder / "style"), str(folder / "image.png"), "--steps", "20", "--out", str(out)]
    assert main(project) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"wrote {out} and {tmp_path / 'found.latent.npy'}: 2 pictures of 8x8, project, seed 0; distance "
    )
    distance, mean = (float(part.split()[0]) for part in (said.split("distance ")[1], said.split("steps, ")[1]))
    assert 0 < distance < mean
    code = np.load(tmp_path / "found.latent.npy")
    assert (code.shape, code.dtype) == ((4, 6), np.float32)
    drawn = latents.synthesize(load(folder / "style"), latents.Latents(code[None]))
    with Image.open(out) as shown:
        right = np.asarray(shown)[2:-2, 68:-2]
        np.testing.assert_allclose(right.astype(int), sheets.grid(drawn, gap=0), atol=1)


def test_project_compares_by_a_classifier_of_its_own(folder, tmp_path):
    out = tmp_path / "found.png"
    project = ["project", str(folder / "mlp"), str(folder / "image.png"), "--class", "2", "--steps", "2"]
    assert main([*project, "--features", f"classifier:{folder / 'guide'}", "--out", str(out)]) == 0
    assert np.load(tmp_path / "found.latent.npy").shape == (6,)


@pytest.mark.slow  # compiles a CLIP
def test_project_compares_by_a_clip(folder, tmp_path, capsys):
    tokenizer = train_bpe(["a red ball", "a blue cube"], 270, 8)
    net = CLIP(VisionTower(image_size=8, patch=4, width=16, depth=1, heads=2),
               TextTower(vocab_size=270, context=8, width=16, depth=1, heads=2), embedding_dim=10)  # fmt: skip
    config = clip.Config(seed=0, steps=1, batch_size=4, data=Data("folder"), net=net)
    params = jax.jit(lambda: clip.init_params(config, jax.random.key(0)))()
    found = {clip.TOKENIZER: tokenizer.to_json().encode()}
    write_model(tmp_path / "clip", config, params, 1, found)
    project = ["project", str(folder / "dcgan"), str(folder / "image.png"), "--steps", "20"]
    assert main([*project, "--features", f"clip:{tmp_path / 'clip'}", "--out", str(tmp_path / "found.png")]) == 0
    said = capsys.readouterr().out
    distance, mean = (float(part.split()[0]) for part in (said.split("distance ")[1], said.split("steps, ")[1]))
    assert 0 < distance < mean


BAD = {
    "suffix": (
        ["interpolate", "{style}", "--out", "walk.mp4"],
        "--out walk.mp4: expected a name that ends in .png, .jpg",
    ),
    "seed": (["interpolate", "{style}", "--seed", "-1"], "--seed -1: expected 0 to"),
    "fps": (["interpolate", "{style}", "--fps", "0"], "--fps 0.0: expected a number above 0, at most 50"),
    "no GAN": (["interpolate", "{guide}"], "guide is a classifier: it draws nothing"),
    "nothing": (["interpolate", "{nothing}"], "nothing"),
    "points": (["interpolate", "{points}"], "draws points of shape (2,), and no pictures"),
    "frames": (["interpolate", "{style}", "--frames", "4"], "frames=4 through 4 pictures: expected 5 or more"),
    "one": (["interpolate", "{style}", "--between", "1"], "expected 2 or more"),
    "classes": (["interpolate", "{mlp}"], "there is no way between classes in z: choose one label"),
    "psi": (["interpolate", "{dcgan}", "--truncation", "0.5"], "truncation=0.5 needs a generator with a w"),
    "class": (["interpolate", "{mlp}", "--class", "3"], "label=3: expected a class from 0 to 2"),
    "png": (["project", "{style}", "{image.png}", "--out", "a.mp4"], "expected a name that ends in .png"),
    "no file": (["project", "{style}", "{none.png}"], "none.png"),
    "no picture": (["project", "{style}", "{text.png}"], "text.png: not one of JPEG"),
    "steps": (["project", "{style}", "{image.png}", "--steps", "0"], "--steps 0: expected 1 or more"),
    "features": (["project", "{style}", "{image.png}", "--features", "vgg"], "features=vgg: expected clip:MODEL"),
    "size": (
        ["project", "{style}", "{image.png}", "--steps", "1", "--features", "classifier:{guide}"],
        "reads (8, 8, 1), these pictures are (8, 8, 3)",
    ),
    "noise": (["project", "{dcgan}", "{image.png}", "--fit-noise"], "this generator has no noise"),
    "unlabelled": (["project", "{mlp}", "{image.png}"], "choose a label"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [part.replace("{", f"{folder}/").replace("}", "") for part in arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(f"flaxgen {arguments[0]}: error: ")
    assert not list(tmp_path.glob("*.*"))
