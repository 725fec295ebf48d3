"""`flaxgen eval`: between two folders, of a model, stopped and gone on with, and what it refuses."""

import io
import json
import logging

import numpy as np
import pytest
import random_weights
import unet_toy
from PIL import Image
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.family.process import Process
from flaxgen.measure import statistics
from flaxgen.metrics import fid, moments
from flaxgen.nets.mlp import MLP
from flaxgen.zoo import diffusion

SAVE_ALWAYS = ["--set-metrics", "save_seconds=0", "kid_subsets=5"]


def pixels(number: int, brightness: int = 0, size: int = 4) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 150, (size, size, 3), dtype=np.uint8) + np.uint8(brightness)


def folder(path, numbers, brightness: int = 0, size: int = 4):
    path.mkdir()
    for i in numbers:
        Image.fromarray(pixels(i, brightness, size)).save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of pictures of 4 px; a diffusion model of 8 px trained on some; a model of points."""
    root = tmp_path_factory.mktemp("eval")
    found = {
        "real": folder(root / "real", range(60)),
        "fake": folder(root / "fake", range(100, 150), 40),
        "one": folder(root / "one", range(1)),
        "large": folder(root / "large", range(20), size=8),
        "mixed": folder(root / "mixed", range(20)),
    }
    Image.fromarray(pixels(0, size=7)).save(found["mixed"] / "odd.png")
    given = {"seed": 0, "steps": 1, "batch_size": 4, "process": Process(schedule="cosine", timesteps=8)}
    data = Data("folder", path=str(found["large"]), image_size=8, threads=1)
    config = diffusion.Config(**given, data=data, net=unet_toy.unet(), sampling=diffusion.Sampling(steps=2, batch=8))
    flat = diffusion.Config(**given, data=Data("moons"), net=MLP(features=2, width=8, depth=1))
    for name, of in (("model", config), ("points", flat)):
        write_model(root / name, of, random_weights.draw_like(verbs.family_of(of).abstract_params(of)), 3)
        found[name] = root / name
    return {name: str(path) for name, path in found.items()}


@pytest.fixture
def run(places, tmp_path):
    """Runs the command with the names of places in it, and gives its exit code and what it wrote."""

    def make(*arguments: str):
        out = tmp_path / "r.json"
        code = main(["eval", "--out", str(out), *(argument.format(**places, tmp=tmp_path) for argument in arguments)])
        return code, json.loads(out.read_text()) if out.exists() else None

    return make


def test_two_folders(run, places, tmp_path, capsys):
    """The figures, flat; a table of the same; the statistics of the real pictures serve a second time."""
    sets = ["--real", "{real}", "--fake", "{fake}", "--reference", "{tmp}/real.npz", "--batch", "16"]
    code, found = run(*sets, "--metrics", "fid,kid,prec_recall,density_coverage", "--set-metrics", "kid_subsets=5")
    assert code == 0
    a, b = (np.stack([pixels(i, more) for i in numbers]).reshape(len(numbers), -1) / 127.5 - 1
            for numbers, more in ((range(60), 0), (range(100, 150), 40)))  # fmt: skip
    assert found["fid"] == pytest.approx(fid.frechet_distance(moments.of([a]), moments.of([b])), rel=1e-5)
    assert {"kid", "kid_std", "precision", "recall", "density", "coverage"} < found.keys()
    told = {"features": "pixels", "num": 50, "num_real": 60, "size": "4x4x3", "replaced": 0, "real": places["real"]}
    assert {name: found[name] for name in told} == told
    said = capsys.readouterr().out
    assert all(f"{name} " in said for name in found)
    assert f"{found['fid']:.6g}" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "real.npz"]
    written = (tmp_path / "real.npz").stat().st_mtime_ns
    assert run(*sets, "--metrics", "fid")[1]["fid"] == found["fid"]
    assert (tmp_path / "real.npz").stat().st_mtime_ns == written


def test_a_model_against_its_own_data(run, places):
    """And on eight devices."""
    asked = ["{model}", "--num", "16", "--batch", "8", "--steps", "3", "--set", "eta=0.5", "--metrics", "fid"]
    code, found = run(*asked)
    assert code == 0
    told = {"model": places["model"], "step": 3, "steps": 3, "sampler": "ddim", "data": "own", "num_real": 20}
    assert {name: found[name] for name in told} == told
    assert run(*asked, "--parallel", "mesh")[1]["fid"] == pytest.approx(found["fid"], rel=1e-6)


def test_sources_by_name(run):
    code, found = run("--real", "digits", "--fake", "digits:test", "--metrics", "fid", "--num", "300")
    assert code == 0
    assert found["size"] == "8x8x1"
    assert found["num_real"] == 1000
    code, found = run("--real", "scenes", "--fake", "scenes:seen", "--metrics", "prec_recall", "--num-real", "9",
                      "--num", "8", "--set-data", "image_size=16", "size=16")  # fmt: skip
    assert code == 0
    assert found["size"] == "16x16x3"


def test_an_interrupted_evaluation_goes_on(run, tmp_path, monkeypatch, capsys):
    """The same figures, and nothing is looked at twice."""
    sets = ["--real", "{real}", "--fake", "{fake}", "--metrics", "fid", "--batch", "10"]
    _, expected = run(*sets)
    (tmp_path / "r.json").unlink()
    looked, whole = [], statistics.moments.add

    def add(before, features):
        looked.append(len(features))
        if len(looked) == 9:
            raise KeyboardInterrupt
        return whole(before, features)

    monkeypatch.setattr(statistics.moments, "add", add)
    code, found = run(*sets, "--reference", "{tmp}/real.npz")
    assert (code, found) == (130, None)
    said = capsys.readouterr().err
    assert "r.json.progress.npz: the same command goes on" in said
    assert said.endswith("flaxgen eval: interrupted\n")
    assert run(*sets, "--reference", "{tmp}/real.npz") == (0, expected)
    assert len(looked) == 6 + 5 + 1, "six batches of real ones, five of the others, and the one that was stopped"
    assert not list(tmp_path.glob("*progress*"))


def test_progress_of_another_evaluation_is_refused(run, tmp_path, monkeypatch, capsys):
    sets = ["--real", "{real}", "--fake", "{fake}", "--metrics", "fid"]
    monkeypatch.setattr("flaxgen.measure.evaluate.MEASURES", {"fid": lambda *_: pytest.fail("not now")})
    with pytest.raises(pytest.fail.Exception):
        run(*sets)
    assert run(*sets, "--seed", "1")[0] == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "r.json.progress.npz holds statistics with seed=0, asked for is 1: delete it, or name another file" in said


def test_fewer_pictures_than_features_are_warned_of(run, caplog):
    with caplog.at_level(logging.WARNING):
        assert run("--real", "{real}", "--fake", "{fake}", "--metrics", "fid", "--num", "20")[0] == 0
    assert "20 pictures for 48 features: the covariance is singular" in caplog.text


def test_pictures_that_stand_for_broken_ones_are_counted(run, places, tmp_path, capsys):
    picture = io.BytesIO()
    for i in range(20):
        name = tmp_path / "some" / f"{i}.png"
        name.parent.mkdir(exist_ok=True)
        picture = io.BytesIO()
        Image.fromarray(pixels(500 + i)).save(picture, "PNG")
        name.write_bytes(picture.getvalue()[: 30 if i in (3, 11) else None])
    code, found = run("--real", "{real}", "--fake", "{tmp}/some", "--metrics", "fid")
    assert (code, found["replaced"], found["replaced_real"]) == (0, 2, 0)
    assert "2 of the pictures are broken, and others were taken in their place" in capsys.readouterr().err


BOTH = ("--real", "{real}", "--fake", "{fake}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to measure: give a run or model directory, or --real SOURCE --fake SOURCE"),
        (("--real", "{real}"), "is compared with nothing: give --fake SOURCE too"),
        (("{model}", "--fake", "{fake}"), "draws the pictures to measure: give --data SOURCE"),
        ((*BOTH, "--data", "{real}"), "is what a model is compared with"),
        ((*BOTH, "--steps", "3"), "--steps is for a model that draws"),
        ((*BOTH, "--out", "r.txt"), "--out r.txt: expected the name of a file that ends in .json"),
        ((*BOTH, "--metrics", "fod"), "metrics='fod' is not known: expected one of fid, kid"),
        ((*BOTH, "--metrics", "is"), "is needs features with classes, inception:FILE"),
        ((*BOTH, "--features", "incepton:x"), "features='incepton' is not known"),
        ((*BOTH, "--features", "inception:{tmp}/none"), "sha256 6726825d"),
        ((*BOTH, "--features", "clip:{model}"), "{model}"),
        ((*BOTH, "--seed", "-1"), "--seed -1: expected 0 to"),
        ((*BOTH, "--num", "51"), "num=51: there are 50 pictures"),
        ((*BOTH, "--set-metrics", "kid_subset=5"), "the nearest is kid_subsets"),
        ((*BOTH, "--set-data", "image_sice=5"), "the nearest is image_size"),
        (("--fake", "{fake}"), "fid compares with real pictures, and there are none"),
        (("--real", "{real}", "--fake", "{tmp}/no"), "{tmp}/no does not exist: give another with --set-data path=DIR"),
        (("--real", "own", "--fake", "{fake}"), "own is what a model was trained on, and there is none"),
        (("--real", "{real}", "--fake", "{one}", "--metrics", "fid"), "num=1: fid need 2 or more pictures"),
        (("--real", "{one}", "--fake", "{fake}", "--metrics", "fid"), "and one of these has 1"),
        (("--real", "{real}", "--fake", "{mixed}", "--batch", "21"), "in one batch: --set-data image_size=N to bring"),
        (("--real", "{real}", "--fake", "{mixed}", "--batch", "1"), "among ones of 4x4x3: --set-data image_size=N to"),
        (("--real", "{real}", "--fake", "{large}"), "pictures of 8x8x3 have 192 features, the real ones 48"),
        (
            ("--real", "{real}", "--fake", "{real}"),
            "one and the same, so it would measure itself: give two sets, or --a",
        ),
        (("--real", "{real}", "--fake", "{tmp}/copies"), "60 of the 60 pictures are among the real ones"),
        (("{points}",), "draws no pictures by itself"),
        (("{model}", "--num", "1", "--metrics", "fid"), "num=1: fid need 2 or more"),
        (("{model}", "--steps", "9"), "steps=9 is more than the schedule's 8 timesteps"),
        (("{model}", "--guidance", "2"), "guidance=2.0 needs a model trained with objective.condition_dropout"),
        (("{model}", "--data", "{tmp}/no"), "{tmp}/no does not exist"),
        (("{tmp}",), "is no run or model directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, run, places, tmp_path, capsys):
    folder(tmp_path / "copies", [*range(60)])
    Image.fromarray(pixels(0)).save(tmp_path / "copies" / "0.bmp")
    (tmp_path / "copies" / "0.png").unlink()
    assert run(*arguments)[0] == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("flaxgen eval: error: ")
    assert message.format(**places, tmp=tmp_path) in said[0]


def test_samples_that_are_no_numbers_are_one_line(run, capsys, monkeypatch):
    monkeypatch.setattr(
        "flaxgen.family.drawing.draw_many", lambda *_, num, **more: np.full((num, 8, 8, 3), np.nan, np.float32)
    )
    assert run("{model}", "--num", "8", "--batch", "8", "--metrics", "fid")[0] == 2
    assert "samples are not finite: the model is broken" in capsys.readouterr().err.splitlines()[-1]


def test_statistics_of_another_size_or_net_are_refused(run, capsys):
    kept = ["--reference", "{tmp}/real.npz", "--metrics", "fid"]
    assert run(*BOTH, *kept)[0] == 0
    assert run(*BOTH, *kept, "--set-data", "image_size=2")[0] == 2
    assert "statistics with image_size=0, asked for is 2" in capsys.readouterr().err.splitlines()[-1]


def test_on_one_process_there_is_no_one_to_join(run, capsys):
    assert run(*BOTH, "--num-processes", "2")[0] == 2
    assert "go together" in capsys.readouterr().err
    assert parallel.process_count() == 1


@pytest.mark.slow
def test_an_unclip_draws_the_captions_of_the_data(toy, run, capsys):
    """At its own size, whatever the batch; what no verb of it knows is refused."""
    asked = [str(toy.model), "--data", "scenes:seen", "--features", f"clip:{toy.model / 'clip'}", "--steps", "2"]
    code, found = run(*asked, "--metrics", "fid,clip_score", "--num", "6", "--batch", "6", "--num-real", "12")
    assert code == 0
    assert 0 <= found["clip_score"] <= 100
    assert (found["size"], found["size_real"], found["num_real"]) == ("64x64x3", "64x64x3", 12)
    assert (found["data"], found["steps"]) == ("scenes:seen", 2)
    assert run(*asked, "--set", "eta=0.5")[0] == 2
    assert "--set eta=0.5: an unclip model has no such setting, only --" in capsys.readouterr().err
