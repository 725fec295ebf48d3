"""GANs as a family: trained, gone on with, on many devices, drawn from, measured, described, and refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data
from flaxgen.nets import dcgan, gan_mlp
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train import checkpoint
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.gan import FAMILY, Augmentation, Config, HalfLife, Regularizers, Sampling

STYLE = Config(
    seed=3,  # with others a leaf of one entry is a sum that all but cancels, and its last digits are the CPU's
    steps=4,
    batch_size=16,
    log_every=1,
    preview_every=4,
    checkpoint_every=2,
    data=Data(source="digits", image_size=8, channels=1, threads=0),
    generator=Generator(
        image_size=8,
        channels=1,
        latent_dim=8,
        style_dim=8,
        num_classes=10,
        mapping_depth=1,
        channel_base=32,
        channel_max=4,
    ),
    discriminator=Discriminator(
        image_size=8, channels=1, num_classes=10, mapping_depth=1, channel_base=32, channel_max=4, group=4
    ),
    style_mixing=0.9,
    regularizers=Regularizers(r1=1.0, interval=2, path_length=2.0, path_interval=2),
    average=HalfLife(images=100, ramp=0.5),
    augmentation=Augmentation(pipe="blit", interval=1, images=200, target=-0.9),
    sampling=Sampling(batch=8),
)


POINTS = Config(
    seed=0,
    steps=2,
    batch_size=16,
    log_every=1,
    preview_every=2,
    data=Data(source="gaussian1d", size=64, threads=0),
    generator=gan_mlp.Generator(shape=(1,), width=4, depth=1),
    discriminator=gan_mlp.Discriminator(shape=(1,), width=4, depth=1),
    loss="wasserstein",
    d_steps=2,
    regularizers=Regularizers(lines=0.1),
    sampling=Sampling(batch=16),
)
DCGAN = Config(
    seed=0,
    steps=2,
    batch_size=8,
    data=Data(source="digits", image_size=16, channels=1, threads=0),
    generator=dcgan.Generator(image_size=16, channels=1, latent_dim=4, width=2),
    discriminator=dcgan.Discriminator(image_size=16, channels=1, width=2, spectral=True),
    loss="hinge",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny StyleGAN2-ADA after four steps."""
    workdir = tmp_path_factory.mktemp("runs") / "style"
    verbs.train(STYLE, workdir, parallel.make_plan("jit"))
    return workdir


def logged(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    names = ("generator", "discriminator", "ema_params", "path_mean", "penalty", "controller", "nan_share")
    return checkpoint.read(workdir / "checkpoints", names)


def test_a_run_leaves_what_every_run_leaves(run):
    assert verbs.read_config(run)[0] == STYLE
    assert (run / "previews" / "step-000004.png").is_file()
    first, *_, last = logged(run)
    assert {
        "loss",
        "grad_norm",
        "diversity",
        "real_sign",
        "augment_probability",
        "penalty",
        "path_length",
    } <= last.keys()
    assert first["augment_probability"] == pytest.approx(16 / 200)
    assert last["augment_probability"] > first["augment_probability"]
    _, state = saved(run)
    assert np.abs(state["generator"]["variables"]["buffers"]["w_avg"]).max() > 0
    np.testing.assert_array_equal(
        state["generator"]["variables"]["buffers"]["w_avg"], state["ema_params"]["buffers"]["w_avg"]
    )


def test_points_are_drawn_and_plotted(tmp_path):
    """Two steps of WGAN-GP, each with two of the critic; a line has histograms for pictures."""
    verbs.train(POINTS, tmp_path / "run", parallel.make_plan("jit"))
    assert (tmp_path / "run" / "previews" / "step-000002.png").is_file()
    assert logged(tmp_path / "run")[-1]["penalty"] > 0
    model = flaxgen.load(tmp_path / "run")
    assert model.generate(jax.random.key(0), num=5).shape == (5, 1)
    with pytest.raises(ValueError, match=r"truncation=0\.5 needs a generator with a w"):
        model.generate(jax.random.key(0), num=5, sampling=Sampling(truncation=0.5))


def test_a_dcgan_keeps_its_statistics_and_its_kernels_directions():
    """Both are buffers that no gradient moves; the averaged generator has the statistics of the last step. A direction
    of one entry, that of a kernel with one output, is a sign and stays."""
    init, make_step = FAMILY.training(DCGAN)
    before = init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 1), dtype=np.uint8)
    after, _ = jax.jit(make_step(None))(before, {"image": images}, jax.random.key(1))
    for old, new in ((before.generator, after.generator), (before.discriminator, after.discriminator)):
        moved = jax.tree.map(
            lambda a, b: float(np.abs(a - b).max()), old.variables["buffers"], new.variables["buffers"]
        )
        signs = [np.size(leaf) == 1 for leaf in jax.tree.leaves(old.variables["buffers"])]
        assert all(change > 0 for change, sign in zip(jax.tree.leaves(moved), signs, strict=True) if not sign)
        assert not all(signs)
    jax.tree.map(np.testing.assert_array_equal, after.ema_params["buffers"], after.generator.variables["buffers"])


@pytest.mark.slow  # compiles the step twice more
def test_a_resumed_run_is_the_run_bit_for_bit(run, tmp_path):
    for steps in (2, 4):
        verbs.train(dataclasses.replace(STYLE, steps=steps), tmp_path / "run", parallel.make_plan("jit"))
    jax.tree.map(np.testing.assert_array_equal, saved(tmp_path / "run"), saved(run))


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["pmap", "mesh"])
def test_many_devices_give_the_run_of_one(run, tmp_path, plan):
    """Four steps with both regularisers, minibatch deviations, mixed styles, noise and augmentation."""
    verbs.train(STYLE, tmp_path / "run", parallel.make_plan(plan))
    (_, ours), (_, theirs) = saved(tmp_path / "run"), saved(run)
    errors = jax.tree.map(lambda a, b: np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-6), ours, theirs)
    worst = max(jax.tree_util.tree_leaves_with_path(errors), key=lambda item: item[1])
    assert worst[1] < 1e-5, worst
    for net in ("generator", "discriminator"):
        a, b = (
            np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree[net]["variables"])]) for tree in (ours, theirs)
        )
        assert np.linalg.norm(a - b) < 1e-6 * np.linalg.norm(b), net


def test_models_draw_what_their_run_draws(run, tmp_path):
    verbs.export(run, tmp_path / "model")
    from_run, from_model = flaxgen.load(run), flaxgen.load(tmp_path / "model")
    a, b = (model.generate(jax.random.key(1), num=12) for model in (from_run, from_model))
    assert a.shape == (12, 8, 8, 1)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(from_model.generate(jax.random.key(1), num=range(9, 12)), a[9:], rtol=1e-4, atol=1e-5)


def test_truncation_noise_and_labels(run):
    """With psi 0 and constant noise there is one picture; noise makes them differ; so do labels with psi 1."""
    model, key = flaxgen.load(run), jax.random.key(1)
    mean = model.generate(key, num=4, sampling=Sampling(truncation=0.0, batch=8))
    np.testing.assert_allclose(mean, np.repeat(mean[:1], 4, 0), atol=1e-6)
    three, four = (model.generate(key, num=4, label=label) for label in (3, 4))
    assert np.abs(three - four).max() > 1e-4
    assert np.abs(three - three[:1]).max() > 1e-4


def test_the_command_line(run, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert main(["sample", str(run), "--num", "4", "--truncation", "0.7", "--beside-data", "--out", str(out)]) == 0
    assert out.is_file()
    result = tmp_path / "eval.json"
    assert main(["eval", str(run), "--num", "16", "--metrics", "fid", "--batch", "8", "--set", "truncation=0.5",
                 "--out", str(result)]) == 0  # fmt: skip
    figures = json.loads(result.read_text())
    assert figures["fid"] > 0
    assert figures["truncation"] == 0.5
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "gan with a Generator, at step 4 of 4" in shown
    assert "  discriminator" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "5"], "--steps 5: a gan model has no such setting, only --"),
        (["--guidance", "2"], "--guidance 2.0: a gan model has no such setting, only --"),
        (["--class", "10"], "label=10: expected a class from 0 to 9"),
        (["--set", "truncate=1"], "truncate is not a field of Sampling: the nearest is truncation"),
    ],
)
def test_what_cannot_be_sampled_is_one_line(run, tmp_path, capsys, arguments, message):
    assert main(["sample", str(run), "--out", str(tmp_path / "a.png"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "softplus"}, "loss='softplus' is not known: expected one of minimax"),
        ({"d_steps": 3}, "d_steps=3: expected a divisor of batch_size=16"),
        ({"style_mixing": 1.5}, "style_mixing=1.5"),
        ({"max_nan_share": 0.0}, "max_nan_share=0.0"),
        (
            {"generator": Generator(image_size=16, channels=1, num_classes=10)},
            r"the generator draws \(16, 16, 1\), the discriminator judges \(8, 8, 1\)",
        ),
        ({"generator": POINTS.generator, "discriminator": POINTS.discriminator}, "need a generator with a w"),
        ({"discriminator": Discriminator(image_size=8, channels=1)}, "generator.num_classes=10 and discriminator"),
    ],
)
def test_configs_that_do_not_fit_are_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STYLE, **changes)


def test_a_penalty_on_lines_is_not_for_norms_of_batches():
    with pytest.raises(ValueError, match=r"set discriminator\.norm=layer"):
        dataclasses.replace(DCGAN, regularizers=Regularizers(lines=10.0))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Regularizers, {"r1": -1.0}, "r1=-1.0: expected 0"),
        (Regularizers, {"interval": 0}, "interval=0: expected 1 or more"),
        (Regularizers, {"path_decay": 0.0}, "path_decay=0.0"),
        (HalfLife, {"images": -1}, "images=-1: expected 0"),
        (Augmentation, {"pipe": "abc"}, "pipe='abc': expected one of blit"),
        (Augmentation, {"policy": "color,blur"}, "policy='color,blur'"),
        (Augmentation, {"pipe": "bg", "policy": "color"}, "set one of them"),
        (Augmentation, {"target": 2.0}, "target=2.0"),
        (Sampling, {"batch": 0}, "batch=0"),
    ],
)
def test_values_out_of_range(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": Augmentation(pipe="bgc")}, "ADA on non-RGB"),
        ({"batch_size": 6}, "not divisible by the minibatch deviation's group=4"),
        ({"batch_size": 4, "d_steps": 4}, "no multiple of shrink=2"),
        ({"discriminator_optimizer": Optimizer(name="sgd")}, "a lazy regulariser is for adam"),
        ({"data": Data(source="digits", image_size=8, channels=3)}, "the data has images of shape"),
    ],
)
def test_runs_that_cannot_begin_are_one_line(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        verbs.train(dataclasses.replace(STYLE, **changes), tmp_path / "run", parallel.make_plan("jit"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_labels_that_are_missing_for_a_conditional_game_are_one_line(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "pictures" / "0.png")
    data = Data(source="folder", path=str(tmp_path / "pictures"), image_size=8, channels=1, threads=0)
    with pytest.raises(ValueError, match=r"data\.source=folder has no label, only image"):
        verbs.train(dataclasses.replace(STYLE, data=data), tmp_path / "run", parallel.make_plan("jit"))
