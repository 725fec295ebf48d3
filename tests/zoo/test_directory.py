"""Runs and models on disk: what is written is what is read, and what does not fit is named."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.data import Data
from flaxgen.family import directory, files
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.mlp import MLP
from flaxgen.train.optim import Optimizer
from flaxgen.weights import store
from flaxgen.zoo.diffusion import FAMILY, Config

CONFIG = Config(
    seed=0,
    steps=4,
    batch_size=8,
    log_every=2,
    preview_every=4,
    checkpoint_every=2,
    data=Data(source="moons", size=64, threads=0),
    net=MLP(features=2, width=16, depth=1),
    process=Process(schedule="cosine", timesteps=8),
    optimizer=Optimizer(learning_rate=1e-2),
    sampling=Sampling(sampler="ddim", steps=2, threshold="none", batch=8),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "moons"
    verbs.train(CONFIG, workdir, parallel.make_plan("jit"))
    return workdir


def test_a_run_directory_is_self_contained(run):
    assert verbs.read_config(run)[0] == CONFIG
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [2, 4]
    assert all({"loss", "grad_norm", "images_per_second", "input_wait"} <= line.keys() for line in logged)
    assert (run / "previews" / "step-000004.png").is_file()


@pytest.mark.smoke
def test_export_and_load_give_the_pictures_of_the_run(run, tmp_path):
    verbs.export(run, tmp_path / "model")
    from_run, from_model = flaxgen.load(run), flaxgen.load(tmp_path / "model")
    assert from_run.step == from_model.step == 4
    jax.tree.map(np.testing.assert_array_equal, from_run.params, from_model.params)
    a, b = (model.generate(jax.random.key(1), num=3) for model in (from_run, from_model))
    assert a.shape == (3, 2)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)


def test_a_picture_depends_on_its_key_and_number_only(run):
    model = flaxgen.load(run)
    few, many = (model.generate(jax.random.key(1), num=num) for num in (3, 11))
    np.testing.assert_allclose(few, many[:3], rtol=1e-5, atol=1e-6)
    assert np.unique(many[:, 0]).size == 11
    assert np.abs(model.generate(jax.random.key(2), num=3) - few).max() > 1e-2


@pytest.mark.parametrize("name", ["pmap", "mesh"])
def test_many_devices_draw_the_same_pictures(run, name):
    one = flaxgen.load(run).generate(jax.random.key(1), num=5)
    many = verbs.load(run, parallel.make_plan(name)).generate(jax.random.key(1), num=5)
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)


def test_a_run_begins_with_the_weights_of_another(run, tmp_path):
    """Parameters and their average; and once it has begun, the other may go."""
    shutil.copytree(run, tmp_path / "older")
    slow = Optimizer(learning_rate=1e-30)
    still = dataclasses.replace(CONFIG, start=str(tmp_path / "older"), steps=1, optimizer=slow)
    state = verbs.train(still, tmp_path / "run", parallel.make_plan("jit"))
    jax.tree.map(np.testing.assert_array_equal, state.params, flaxgen.load(run).params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.ema_params, state.params)
    shutil.rmtree(tmp_path / "older")
    again = verbs.train(dataclasses.replace(still, steps=2), tmp_path / "run", parallel.make_plan("mesh"))
    assert int(again.step) == 2
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)


def test_weights_that_a_run_cannot_begin_with(run, tmp_path, toy):
    for start, net, message in (
        (str(tmp_path / "none"), CONFIG.net, "is no run or model directory"),
        (str(toy.runs["clip"]), CONFIG.net, "holds another kind of model: expected a diffusion"),
        (str(run), dataclasses.replace(CONFIG.net, width=32), "has shape"),
    ):
        changed = dataclasses.replace(CONFIG, start=start, net=net)
        with pytest.raises(ValueError, match=message):
            verbs.train(changed, tmp_path / "run", parallel.make_plan("jit"))
        assert not (tmp_path / "run").exists()


def test_a_game_begins_with_fresh_weights(tmp_path):
    game = verbs.read_experiment(Path(__file__).parents[2] / "experiments" / "gan_gaussian1d.py")
    with pytest.raises(ValueError, match="start=there cannot be: a gan begins with fresh weights"):
        verbs.train(dataclasses.replace(game, start="there"), tmp_path / "run", parallel.make_plan("jit"))


@pytest.mark.smoke
def test_more_steps_go_on_with_the_run(tmp_path):
    verbs.train(CONFIG, tmp_path / "run", parallel.make_plan("jit"))
    longer = dataclasses.replace(CONFIG, steps=6)
    state = verbs.train(longer, tmp_path / "run", parallel.make_plan("jit"))
    assert int(state.step) == 6
    assert verbs.read_config(tmp_path / "run")[0].steps == 6


def test_another_experiment_in_the_workdir_is_refused(run):
    before = (run / "config.json").read_bytes()
    other = dataclasses.replace(CONFIG, net=MLP(features=2, width=32, depth=1))
    with pytest.raises(ValueError, match=r"holds another experiment: net\.width is 16 there and 32 here"):
        verbs.train(other, run, parallel.make_plan("jit"))
    assert (run / "config.json").read_bytes() == before


def test_fewer_steps_than_taken_are_refused(run):
    before = (run / "config.json").read_bytes()
    with pytest.raises(ValueError, match="is at step 4 already: expected --steps 4 or more, got 3"):
        verbs.train(dataclasses.replace(CONFIG, steps=3), run, parallel.make_plan("jit"))
    assert (run / "config.json").read_bytes() == before


def test_another_decay_is_told_of(tmp_path, capfd):
    decaying = dataclasses.replace(CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, decay="cosine"))
    directory.claim(tmp_path, FAMILY, decaying, {})
    directory.claim(tmp_path, FAMILY, dataclasses.replace(decaying, steps=5), {})
    assert capfd.readouterr().err == ""
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    directory.claim(tmp_path, FAMILY, dataclasses.replace(decaying, steps=6), {})
    assert "the learning rate now decays over 6 steps" in capfd.readouterr().err


def test_a_claim_that_was_torn_is_made_again(tmp_path):
    (tmp_path / files.TORN).write_text("{")
    directory.claim(tmp_path, FAMILY, CONFIG, {})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert verbs.read_config(tmp_path) == (CONFIG, 0)


def test_only_process_0_claims_and_the_others_hear_of_it(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("important")
    monkeypatch.setattr(parallel, "process_index", lambda: 1)
    monkeypatch.setattr(parallel, "agree", lambda mine: 0)
    directory.claim(tmp_path, FAMILY, CONFIG, {})
    monkeypatch.setattr(parallel, "agree", lambda mine: 1)
    with pytest.raises(ValueError, match="process 0 cannot use"):
        directory.claim(tmp_path, FAMILY, CONFIG, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"config": []}, "which is no family: expected one of Diffusion, "),
        ({"config": {"type": "MLP", "features": 2}}, "holds a 'MLP', which is no family"),
        ({"config": {"type": "Diffusion", "seed": 0}}, "config type Diffusion lacks the field"),
        ({"config": verbs.family_of(CONFIG).encode(CONFIG), "step": []}, r"step=\[\]"),
        ({"net": "UNet"}, "is not flaxgen's"),
        ('{"config": ' * 10**6, "is not JSON: it is nested deeper than 100"),
        ('{"step": ' + "1" * 10**6 + "}", "is not JSON: an integer has 1000000 digits"),
    ],
)
def test_a_config_that_is_none_is_one_line(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        verbs.read_config(tmp_path)
    assert "\n" not in str(error.value)
    assert "config.json" in str(error.value)


def test_parts_that_the_devices_do_not_divide(tmp_path):
    with pytest.raises(ValueError, match="batch_size=8 in accumulate=2 parts is not divisible by the 8 devices"):
        verbs.train(dataclasses.replace(CONFIG, accumulate=2), tmp_path / "run", parallel.make_plan("pmap"))
    assert not (tmp_path / "run").exists()


def test_a_workdir_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        verbs.train(CONFIG, tmp_path, parallel.make_plan("jit"))


def _drop(tensors):
    tensors.pop("out/bias")


def _add(tensors):
    tensors["extra/kernel"] = np.zeros(3, np.float32)


def _reshape(tensors):
    tensors["out/bias"] = np.zeros(5, np.float32)


@pytest.mark.parametrize(("damage", "named"), [(_drop, "out/bias"), (_add, "extra/kernel"), (_reshape, "out/bias")])
def test_a_tensor_that_does_not_fit_is_named(run, tmp_path, damage, named):
    verbs.export(run, tmp_path / "model")
    tensors = store.read_file(tmp_path / "model" / "model.safetensors")
    damage(tensors)
    store.write_file(tmp_path / "model" / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=named):
        flaxgen.load(tmp_path / "model")


def test_export_does_not_overwrite(run, tmp_path):
    verbs.export(run, tmp_path / "model")
    with pytest.raises(ValueError, match="not empty"):
        verbs.export(run, tmp_path / "model")
