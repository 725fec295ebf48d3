"""Autoencoders of two levels: statistics of either on any devices, codes to files and back, and what is refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.family.matching import real_examples
from flaxgen.nets.vqvae import VqVae
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train import checkpoint
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import FAMILY, Codebook, Config, Levels

DATA = Data(source="digits", image_size=8, channels=1, threads=0)
NET = VqVae2(
    image_size=8,
    in_channels=1,
    factor=2,
    top_factor=4,
    channels=4,
    residual_channels=4,
    depth=0,
    latent_channels=3,
)
VQ = Config(
    seed=0,
    steps=4,
    batch_size=16,
    log_every=1,
    preview_every=4,
    checkpoint_every=2,
    data=DATA,
    net=NET,
    bottleneck=Levels(Codebook(codes=5, restart=0.5, decay=0.5), Codebook(codes=6, restart=0.5, decay=0.5)),
    optimizer=Optimizer(learning_rate=1e-2),
)


@functools.cache
def steps_of(plan, accumulate=1):
    """Three steps on the devices of a plan, with the metrics of the last."""
    config = dataclasses.replace(VQ, accumulate=accumulate, optimizer=Optimizer(name="sgd", learning_rate=0.1))
    plan = parallel.make_plan(plan) if plan != "mesh" else parallel.mesh_plan(data=4, fsdp=2)
    init, make_step = FAMILY.training(config)
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    step, state = plan.compile_step(make_step), plan.place_state(init(jax.random.key(0)))
    for _ in range(3):
        state, metrics = step(state, plan.place_batch({"image": images}), jax.random.key(1))
    return jax.device_get(plan.single(state)), jax.device_get(metrics)


@pytest.mark.parametrize(
    ("plan", "accumulate"), [pytest.param("pmap", 1, marks=pytest.mark.slow), ("mesh", 1), ("jit", 4)]
)
def test_both_levels_are_the_same_on_any_devices_and_in_any_parts(plan, accumulate):
    """Codes that die and begin again included: every number of the state."""
    (ours, said), (theirs, told) = steps_of(plan, accumulate), steps_of("jit")
    fresh = FAMILY.training(VQ)[0](jax.random.key(0)).params
    for level in ("top", "bottom"):
        assert not np.array_equal(theirs.params[level]["codebook"], fresh[level]["codebook"])
        assert np.ptp(theirs.held.statistics[level].count) > 0
        for name in ("perplexity", "used", "commitment"):
            np.testing.assert_allclose(np.mean(said[f"{name}_{level}"]), told[f"{name}_{level}"], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_vectors_that_chose_each_code():
    """Counts of one step by counting, here: decay 1/2 of ones, and half of what the batch chose."""
    config = dataclasses.replace(VQ, bottleneck=Levels(*(Codebook(codes=k, restart=0.0, decay=0.5) for k in (5, 6))))
    init, make_step = FAMILY.training(config)
    state = init(jax.random.key(0))
    model = FAMILY.trained(config, jax.tree.map(jnp.array, state.params))
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    codes = model.encode_codes(images)
    after, metrics = jax.jit(make_step(None))(state, {"image": images}, jax.random.key(1))
    for level, known, places in (("top", 5, 4), ("bottom", 6, 16)):
        assert codes[level].size == 16 * places
        chosen = np.bincount(codes[level].ravel(), minlength=known)
        np.testing.assert_allclose(after.held.statistics[level].count, 0.5 + 0.5 * chosen, rtol=1e-6)
        assert metrics[f"perplexity_{level}"] == pytest.approx(known, rel=1e-4)  # before any was seen


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps."""
    workdir = tmp_path_factory.mktemp("runs") / "vq"
    verbs.train(VQ, workdir, parallel.make_plan("jit"))
    return workdir


@pytest.mark.slow
def test_a_resumed_run_is_the_run(run, tmp_path):
    """Statistics of both levels included."""
    for steps in (2, 4):
        verbs.train(dataclasses.replace(VQ, steps=steps), tmp_path / "run", parallel.make_plan("jit"))
    names = ("params", "ema_params", "opt_state", "held")
    states = [checkpoint.read(path / "checkpoints", names) for path in (tmp_path / "run", run)]
    assert states[0][0] == states[1][0] == 4
    assert jax.tree.all(jax.tree.map(np.array_equal, states[0][1], states[1][1]))


def test_both_levels_are_logged(run):
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {f"{name}_{level}" for name in ("perplexity", "used") for level in ("top", "bottom")} <= line.keys()


def test_pictures_to_codes_of_both_levels_and_back(run, tmp_path, capsys):
    """By the verbs, through a file, from a run and from its model directory."""
    out, again, model_directory = tmp_path / "codes.npz", tmp_path / "again.npz", tmp_path / "model"
    assert main(["export", str(run), str(model_directory)]) == 0
    assert main(["encode", str(run), "--num", "5", "--out", str(out)]) == 0
    with np.load(out) as stored:
        found = dict(stored)
    assert (found["top"].shape, found["bottom"].shape) == ((5, 2, 2), (5, 4, 4))
    assert main(["decode", str(model_directory), str(out), "--out", str(again)]) == 0
    with np.load(again) as stored:
        np.testing.assert_array_equal(stored["samples"], found["samples"])
    model = flaxgen.load(model_directory)
    images = real_examples(dataclasses.replace(DATA, split="test"), "image", 5)
    np.testing.assert_array_equal(model.encode_codes(images)["top"], found["top"])
    pictures = next(kind for kind in model.requests if kind.verb == "reconstruct")
    np.testing.assert_array_equal(model.perform(pictures(num=5)).arrays, found["samples"])
    np.save(tmp_path / "one.npy", found["bottom"])
    files = {
        "other": {**found, "autoencoder": "0123"},
        "lacking": {"bottom": found["bottom"]},
        "beyond": {**found, "top": np.full_like(found["top"], 5)},
        "sizes": {**found, "top": found["top"][:, :1]},
        "floats": {**found, "bottom": found["bottom"].astype(np.float32)},
    }
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for file, said in (
        ("one.npy", "is one array: expected an .npz with top, bottom"),
        ("other.npz", "encoded by the autoencoder 0123"),
        ("lacking.npz", "holds bottom: expected top, bottom"),
        ("beyond.npz", "code [5]: expected codes from 0 to 4"),
        ("sizes.npz", "holds top (5, 1, 2) and bottom (5, 4, 4): expected bottom of shape (5, 2, 4)"),
        ("floats.npz", "expected bottom of shape [N 4 4]"),
    ):
        capsys.readouterr()
        assert main(["decode", str(run), str(tmp_path / file), "--out", str(again)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert said in error


def test_codes_stand_for_what_the_decoder_reads(run):
    """Codes and latents decode alike; features do, too, and the bottom's change with the top's codes."""
    model, images = flaxgen.load(run), real_examples(DATA, "image", 6)
    codes, drawn = model.encode_codes(images), model.decode(model.encode(images))
    np.testing.assert_allclose(model.decode_codes(codes), drawn, atol=1e-5)
    np.testing.assert_allclose(model.decode_features(model.features(images)), drawn, atol=1e-5)
    other = {**codes, "top": (codes["top"] + 1) % 5}
    assert (np.abs(model.decode_codes(other) - drawn).max((1, 2, 3)) > 1e-4).all()
    other = {**codes, "bottom": (codes["bottom"] + 1) % 6}
    assert (np.abs(model.decode_codes(other) - drawn).max((1, 2, 3)) > 1e-4).all()
    top, bottom = (np.asarray(model.params[level]["codebook"]) for level in ("top", "bottom"))
    mean = np.broadcast_to(bottom.mean(0), (6, 4, 4, 3))
    alone = model.decode(np.concatenate((top[codes["top"]].repeat(2, 1).repeat(2, 2), mean), -1))
    np.testing.assert_allclose(model.decode_top(codes["top"]), alone, atol=1e-5)
    assert model.interpolate(num=2, frames=3, once=True).images.shape == (3, 8, 8, 1)


def test_figures_of_both_levels(run):
    images, model = real_examples(DATA, "image", 40), flaxgen.load(run)
    found, codes = model.measure(images), model.encode_codes(images)
    for level, known in (("top", 5), ("bottom", 6)):
        share = np.bincount(codes[level].ravel(), minlength=known) / codes[level].size
        assert found[f"used_{level}"] == pytest.approx((share > 0).mean())
        entropy = -(share * np.log(np.maximum(share, 1e-30))).sum()
        assert found[f"perplexity_{level}"] == pytest.approx(np.exp(entropy), rel=1e-4)


def test_other_sizes_have_to_fit_the_top(run, tmp_path, capsys):
    wide, odd = tmp_path / "wide.png", tmp_path / "odd.png"
    for path, size in ((wide, (12, 8)), (odd, (12, 10))):
        Image.fromarray(np.eye(*size, dtype=np.uint8)).save(path)
    out = ["--whole", "--out", str(tmp_path / "out.npz")]
    assert main(["reconstruct", str(run), str(wide), *out]) == 0
    with np.load(tmp_path / "out.npz") as stored:
        assert stored["samples"].shape == (1, 12, 8, 1)
    for arguments, said in (
        ([str(odd)], "multiples of 4"),
        ([str(wide), "--tile", "8"], "tile=8: a net of two levels takes pictures whole"),
    ):
        capsys.readouterr()
        assert main(["reconstruct", str(run), *arguments, *out]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bottleneck": Codebook(codes=6)}, "a VqVae2 net with a Codebook bottleneck: a VqVae2 has two maps"),
        ({"net": VqVae(image_size=8, in_channels=1, factor=2)}, "a VqVae net with a Levels bottleneck"),
    ],
)
def test_parts_that_do_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(VQ, **changes)


def test_it_has_no_samples_and_no_layout_of_others(run, tmp_path, capsys):
    assert main(["sample", str(run), "--out", str(tmp_path / "x.png")]) == 2
    assert "train a prior over its codes" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "x"), "--layout", "diffusers"]) == 2
    assert "a VqVae2 has no counterpart in diffusers" in capsys.readouterr().err
