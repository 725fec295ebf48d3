"""A run that measures its samples: what it logs is what `flaxgen eval` finds, on any devices, interrupted or not."""

import dataclasses
import json

import numpy as np
import pytest
import unet_toy

from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.family.evaluation import Periodic
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.mlp import MLP
from flaxgen.zoo import diffusion

NET = unet_toy.unet(**unet_toy.GREY)
CONFIG = diffusion.Config(
    seed=0, steps=4, batch_size=8, log_every=3, checkpoint_every=2, preview_every=0, net=NET,
    data=Data("digits", image_size=8, channels=1, threads=0),
    process=Process(schedule="cosine", timesteps=8), sampling=Sampling(steps=2, batch=16),
    evaluate_every=2, evaluation=Periodic(metrics=("fid", "prec_recall"), num=16, num_real=32, split="test", batch=16),
)  # fmt: skip


def logged(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: {name: row[name] for name in row if name.startswith("eval/")} for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    verbs.train(CONFIG, workdir, parallel.make_plan("jit"))
    return workdir


def test_figures_are_logged_where_asked(whole):
    """Beside the loss, at every second step; the third is logged without."""
    found = logged(whole)
    assert [(step, sorted(figures)) for step, figures in found.items()] == [
        (2, ["eval/fid", "eval/precision", "eval/recall"]),
        (3, []),
        (4, ["eval/fid", "eval/precision", "eval/recall"]),
    ]
    assert found[2]["eval/fid"] != found[4]["eval/fid"]
    assert len(list((whole / "evaluation").iterdir())) == 1


def test_they_are_those_of_the_command(whole, tmp_path):
    asked = ["--data", "own:test", "--num", "16", "--num-real", "32", "--batch", "16", "--metrics", "fid,prec_recall"]
    assert main(["eval", str(whole), *asked, "--out", str(tmp_path / "r.json")]) == 0
    found, expected = json.loads((tmp_path / "r.json").read_text()), logged(whole)[4]
    for name, value in expected.items():
        assert found[name.removeprefix("eval/")] == pytest.approx(value, rel=1e-6), name


@pytest.mark.slow
def test_a_resumed_run_logs_the_same(whole, tmp_path):
    for steps in (2, 4):
        verbs.train(dataclasses.replace(CONFIG, steps=steps), tmp_path / "parts", parallel.make_plan("jit"))
    assert logged(tmp_path / "parts") == logged(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mesh", "pmap"])
def test_eight_devices_are_one(name, whole, tmp_path):
    verbs.train(CONFIG, tmp_path / "run", parallel.make_plan(name))
    found, expected = logged(tmp_path / "run"), logged(whole)
    np.testing.assert_allclose(found[2]["eval/fid"], expected[2]["eval/fid"], rtol=1e-3)  # after two steps of Adam


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate_every": -1}, "evaluate_every=-1: expected 0 or more"),
        ({"net": MLP(features=2)}, "measures pictures, and this net draws points"),
    ],
)
def test_what_cannot_be_measured(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("fad",)}, "metrics='fad' is not known"),
        ({"metrics": ("clip_score",)}, "has no captions"),
        ({"num": 1}, "need 2 or more"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG.evaluation, **changes)


def test_features_that_are_not_there_stop_the_run_before_it_begins(tmp_path):
    config = dataclasses.replace(CONFIG, evaluation=Periodic(features=f"inception:{tmp_path}/none"))
    with pytest.raises(FileNotFoundError, match="download"):
        verbs.train(config, tmp_path / "run", parallel.make_plan("jit"))
    assert not (tmp_path / "run" / "checkpoints").exists()
