"""What holds of every stage of an unCLIP: it learns, trains alike on many devices, goes on, and is its files."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import unclip_toy
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.data import Order, batch_at, random_transform
from flaxgen.family import directory
from flaxgen.train.optim import Optimizer

STAGES = unclip_toy.TRAINED
FIRST = ["clip", *(pytest.param(name, marks=pytest.mark.slow) for name in STAGES[1:])]
PLANS = {"pmap": parallel.pmap_plan, "mesh": lambda: parallel.mesh_plan(data=4, fsdp=2)}


@pytest.fixture(params=STAGES)
def name(request):
    return request.param


def test_a_config_is_its_json(name):
    config = unclip_toy.CONFIGS[name]
    family = verbs.family_of(config)
    assert family.decode(json.loads(json.dumps(family.encode(config)))) == config


@pytest.mark.parametrize("name", FIRST)
def test_it_learns(name, toy, tmp_path):
    verbs.train(unclip_toy.config_of(name, toy.runs), tmp_path / "run", parallel.make_plan("jit"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == unclip_toy.STEPS
    assert np.mean(losses[-8:]) < 0.97 * np.mean(losses[:8])


def test_a_run_goes_on_with_the_files_it_has(name, toy):
    run, config = toy.runs[name], unclip_toy.config_of(name, toy.runs)
    family = verbs.family_of(config)
    before = {file: (run / file).read_bytes() for file in family.files}
    prepared = directory.prepare(family, config, run)
    assert prepared == before
    directory.claim(run, family, dataclasses.replace(config, steps=config.steps + 1), prepared)
    assert verbs.read_config(run)[0].steps == config.steps + 1
    directory.claim(run, family, config, prepared)


def test_an_exported_stage_is_the_run(name, toy, tmp_path):
    verbs.export(toy.runs[name], tmp_path / "model")
    run, model = verbs.load(toy.runs[name]), verbs.load(tmp_path / "model")
    assert model.config == run.config
    assert model.step == unclip_toy.STEPS
    jax.tree.map(np.testing.assert_array_equal, model.params, run.params)
    assert model.files == run.files
    fitting = "unclip, latent_diffusion, controlnet, latent_control, autoencoder, diffusion"
    with pytest.raises(ValueError, match=f"model: --layout diffusers is for {fitting}"):
        verbs.export(tmp_path / "model", tmp_path / "diffusers", layout="diffusers")
    assert not (tmp_path / "diffusers").exists()


def test_half_precision_halves_the_files_and_keeps_the_fingerprint(toy, tmp_path):
    verbs.compose(tmp_path / "half", toy.runs, dtype="float16")
    sizes = [(root / "clip" / "model.safetensors").stat().st_size for root in (tmp_path / "half", toy.model)]
    assert sizes[0] < 0.7 * sizes[1]
    half, whole = verbs.load(tmp_path / "half").parts, verbs.load(toy.model).parts
    assert half["clip"].fingerprint == whole["clip"].fingerprint
    assert half.keys() == whole.keys() == unclip_toy.CONFIGS.keys()
    for name, ours in half.items():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-10, atol=2**-24), ours.params, whole[name].params
        )


def test_a_composite_says_nothing_of_where_its_stages_lay(toy, tmp_path):
    parts = {name: tmp_path / "parts" / name for name in ("clip", "decoder")}
    for name, part in parts.items():
        model = verbs.load(toy.runs[name])
        config = dataclasses.replace(model.config, start=str(tmp_path / "older"))
        write_model(part, config, model.params, model.step, model.files)
    verbs.compose(tmp_path / "model", parts)
    for name in parts:
        assert str(tmp_path) in (parts[name] / "config.json").read_text()
        text = (tmp_path / "model" / name / "config.json").read_text()
        assert str(tmp_path) not in text
        assert str(toy.runs["clip"]) not in text


def experiment_of(name, toy):
    """The stage's run on its data, by plain gradients: Adam makes steps of rounding where there is no gradient."""
    config = unclip_toy.config_of(name, toy.runs)
    config = dataclasses.replace(config, optimizer=Optimizer(name="sgd", learning_rate=0.1))
    family = verbs.family_of(config)
    experiment = family.build(config, directory.prepare(family, config, toy.runs[name]))
    transform = random_transform(config.data)
    return experiment, [
        batch_at(experiment.source, Order(0, 8, 0, 1), i, fields=experiment.batch_fields, transform=transform)
        for i in range(3)
    ]


def three_steps(plan, experiment, batches):
    """The parameters after three steps, as one vector, and the losses."""
    step, losses = plan.compile_step(experiment.make_train_step), []
    state = plan.place_state(experiment.init(jax.random.key(0)))
    for batch in batches:
        state, metrics = step(state, plan.place_batch(batch), jax.random.key(1))
        losses.append(float(metrics["loss"]))
    return _vector(plan.single(state).params), np.array(losses)


def _vector(params):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(params))])


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_many_devices_train_as_one(name, toy, monkeypatch):
    """Of the losses CLIP's alone looks across the batch: the others are slow tests."""
    monkeypatch.setattr(parallel, "MIN_SHARDED", 64)
    experiment, batches = experiment_of(name, toy)
    start = _vector(experiment.init(jax.random.key(0)).params)
    expected, losses = three_steps(parallel.jit_plan(), experiment, batches)
    assert np.linalg.norm(expected - start) > 1e-3 * np.linalg.norm(start), "nothing was learned"
    for plan in PLANS.values():
        params, others = three_steps(plan(), experiment, batches)
        assert np.linalg.norm(params - expected) < 1e-5 * np.linalg.norm(expected)
        np.testing.assert_allclose(others, losses, rtol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_is_the_whole_run(name, toy, tmp_path):
    config = dataclasses.replace(unclip_toy.config_of(name, toy.runs), steps=3, checkpoint_every=2)
    plan = parallel.make_plan("jit")
    whole = verbs.train(config, tmp_path / "whole", plan)
    verbs.train(dataclasses.replace(config, steps=2), tmp_path / "parts", plan)
    parts = verbs.train(config, tmp_path / "parts", plan)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(parts), jax.device_get(whole))
