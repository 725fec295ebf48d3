"""Autoencoders as a family: every bottleneck, a run and its resumption, many devices, requests, and what is refused."""

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
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.nets.vqvae import VqVae
from flaxgen.train import checkpoint
from flaxgen.train.optim import Optimizer
from flaxgen.zoo.autoencoder import (
    FAMILY,
    Bottleneck,
    Codebook,
    Config,
    Finite,
    Gaussian,
    Gumbel,
    Reconstruction,
    Signs,
)

DATA = Data(source="digits", image_size=8, channels=1, threads=0)
VQ = Config(
    seed=0,
    steps=4,
    batch_size=16,
    log_every=1,
    preview_every=4,
    checkpoint_every=2,
    data=DATA,
    net=VqVae(image_size=8, in_channels=1, factor=2, channels=4, residual_channels=4, depth=1, latent_channels=3),
    bottleneck=Codebook(codes=6, restart=0.5, decay=0.5),
    optimizer=Optimizer(learning_rate=1e-2),
)
VAE = dataclasses.replace(
    VQ,
    net=DenseAutoencoder(image_size=8, in_channels=1, out_channels=2, widths=(8,), latent_channels=3, moments=True),
    bottleneck=Gaussian(),
    reconstruction=Reconstruction("logistic", levels=17),
)


def dense(width):
    return DenseAutoencoder(image_size=8, in_channels=1, widths=(4,), latent_channels=width)


BOTTLENECKS = {
    "plain": (Bottleneck(), dense(3)),
    "gaussian": (Gaussian(beta=0.5, free_nats=0.1), VAE.net.clone(out_channels=1)),
    "codebook": (Codebook(codes=5), dense(3)),
    "gradient": (Codebook(codes=5, update="gradient", restart=0.0, normalise=True), dense(3)),
    "gumbel": (Gumbel(codes=5, temperature_steps=10, beta_steps=4), dense(5)),
    "hard": (Gumbel(codes=5, hard=True), dense(5)),
    "finite": (Finite((5, 3, 4)), dense(3)),
    "signs": (Signs(bits=3), dense(3)),
}


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_every_bottleneck_trains_and_its_codes_are_what_the_decoder_reads(name):
    bottleneck, net = BOTTLENECKS[name]
    config = dataclasses.replace(VQ, net=net, bottleneck=bottleneck)
    init, make_step = FAMILY.training(config)
    state = init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    after, metrics = jax.jit(make_step(None))(state, {"image": images}, jax.random.key(1))
    assert all(np.isfinite(value) for value in metrics.values())
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, after.params)
    assert min(moved["encoder"]["out"]["kernel"], moved["decoder"]["out"]["kernel"]) > 0
    assert "codebook" not in moved or moved["codebook"] > 0
    h = jax.random.normal(jax.random.key(2), (7, 1, 1, net.code_dim))
    z = bottleneck.quantise(after.params, h)
    assert z.shape == (7, 1, 1, net.latent_dim)
    if bottleneck.num_codes:
        codes = bottleneck.to_codes(after.params, h)
        assert codes.shape == (7, 1, 1)
        np.testing.assert_allclose(bottleneck.from_codes(after.params, codes), z, atol=1e-6)
        assert metrics["perplexity"] == pytest.approx(bottleneck.num_codes, rel=1e-4)  # before any was seen
        counts = jax.tree.leaves(after.held.statistics)
        assert any(x.shape == (bottleneck.num_codes,) and float(jnp.ptp(x)) > 0 for x in counts)
    else:
        with pytest.raises(ValueError, match="no codes"):
            bottleneck.to_codes(after.params, h)


@functools.cache
def steps_of(plan, accumulate=1):
    """Three steps of the VQ-VAE on the devices of a plan."""
    config = dataclasses.replace(VQ, accumulate=accumulate, optimizer=Optimizer(name="sgd", learning_rate=0.1))
    plan = parallel.make_plan(plan) if plan != "mesh" else parallel.mesh_plan(data=4, fsdp=2)
    init, make_step = FAMILY.training(config)
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    step, state = plan.compile_step(make_step), plan.place_state(init(jax.random.key(0)))
    for _ in range(3):
        state, _ = step(state, plan.place_batch({"image": images}), jax.random.key(1))
    return jax.device_get(plan.single(state))


@pytest.mark.parametrize(
    ("plan", "accumulate"), [pytest.param("pmap", 1, marks=pytest.mark.slow), ("mesh", 1), ("jit", 4)]
)
def test_codes_are_the_same_on_any_devices_and_in_any_parts(plan, accumulate):
    """Codes that die and begin again included: every number of the state."""
    ours, theirs = steps_of(plan, accumulate), steps_of("jit")
    assert not np.array_equal(theirs.params["codebook"], FAMILY.training(VQ)[0](jax.random.key(0)).params["codebook"])
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A VQ-VAE and a VAE after four steps."""
    folder = tmp_path_factory.mktemp("runs")
    for name, config in (("vq", VQ), ("vae", VAE)):
        verbs.train(config, folder / name, parallel.make_plan("jit"))
    return folder


@pytest.mark.slow
def test_a_resumed_run_is_the_run(runs, tmp_path):
    """Statistics of the codes included."""
    for steps in (2, 4):
        verbs.train(dataclasses.replace(VQ, steps=steps), tmp_path / "run", parallel.make_plan("jit"))
    ours, theirs = ((path / "metrics.jsonl").read_text().splitlines() for path in (tmp_path / "run", runs / "vq"))
    assert [line.split('"images_per')[0] for line in ours] == [line.split('"images_per')[0] for line in theirs]
    names = ("params", "ema_params", "opt_state", "held")
    states = [checkpoint.read(path / "checkpoints", names) for path in (tmp_path / "run", runs / "vq")]
    assert states[0][0] == states[1][0] == 4
    assert jax.tree.all(jax.tree.map(np.array_equal, states[0][1], states[1][1]))


def test_a_run_begins_with_the_codes_of_another(runs, tmp_path):
    """Its averages too, or the first step would put the codes where fresh ones are."""
    config = dataclasses.replace(VQ, start=str(runs / "vq"), steps=1, optimizer=Optimizer(learning_rate=1e-9))
    verbs.train(config, tmp_path / "run", parallel.make_plan("jit"))
    ours, theirs = flaxgen.load(tmp_path / "run"), flaxgen.load(runs / "vq")
    fresh = FAMILY.init_params(VQ, jax.random.key(0))["codebook"]
    near, far = (np.abs(theirs.params["codebook"] - codes).mean() for codes in (ours.params["codebook"], fresh))
    assert near < 0.5 * far


def test_pictures_to_codes_and_back(runs, tmp_path, capsys):
    model = flaxgen.load(runs / "vq")
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(picture)
    encoded = model.encode(model.fit([np.asarray(Image.open(picture).convert("L"))[..., None]]))
    assert encoded.shape == (1, 4, 4, 3)
    out, again = tmp_path / "codes.npz", tmp_path / "again.npz"
    assert main(["encode", str(runs / "vq"), str(picture), "--out", str(out)]) == 0
    with np.load(out) as stored:
        assert stored["codes"].shape == (1, 4, 4)
        assert str(stored["autoencoder"]) == model.fingerprint
        codes, drawn = stored["codes"], stored["samples"]
    assert main(["decode", str(runs / "vq"), str(out), "--out", str(again)]) == 0
    with np.load(again) as stored:
        np.testing.assert_array_equal(stored["samples"], drawn)
    pictures = model.reconstruct(images=(picture,))
    assert ".reconstruct(...)" in repr(model)
    assert ".encode(...)" not in repr(model), "that one takes arrays"
    np.testing.assert_array_equal(pictures.arrays, drawn)
    np.testing.assert_allclose(model.decode_codes(codes), model.autoencode(pictures.beside), atol=1e-5)
    np.save(tmp_path / "bad.npy", np.full((1, 4, 4), 6))
    np.savez(tmp_path / "other.npz", codes=codes, autoencoder="0123")
    np.save(tmp_path / "floats.npy", np.zeros((1, 4, 4, 3), np.float32))
    for file, said in (
        ("bad.npy", "code [6]: expected codes from 0 to 5"),
        ("other.npz", "encoded by the autoencoder 0123"),
        ("floats.npy", "expected codes of shape [N 4 4]"),
        ("a.png", "is no .npz or .npy file"),
    ):
        capsys.readouterr()
        assert main(["decode", str(runs / "vq"), str(tmp_path / file), "--out", str(again)]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_map_of_another_size_is_refused_where_the_net_has_one(runs, tmp_path, capsys):
    np.save(tmp_path / "latent.npy", np.zeros((1, 2, 2, 3), np.float32))
    arguments = ["decode", str(runs / "vae"), str(tmp_path / "latent.npy"), "--out", str(tmp_path / "x.png")]
    assert main(arguments) == 2
    assert "a picture of 16x16: this net takes 8x8 alone" in capsys.readouterr().err
    with pytest.raises(ValueError, match="frames=3 through 4 pictures: expected 4 or more"):
        flaxgen.load(runs / "vae").interpolate(num=4, frames=3, once=True)


def test_a_vae_draws_and_others_say_what_to_do(runs, tmp_path, capsys):
    model = flaxgen.load(runs / "vae")
    a, b = (model.generate(jax.random.key(0), num) for num in (6, range(4, 6)))
    np.testing.assert_allclose(a[4:], b, atol=1e-5)
    assert model.sample(num=2, std=0.5).images.shape == (2, 8, 8, 1)
    assert main(["sample", str(runs / "vq"), "--out", str(tmp_path / "x.png")]) == 2
    assert "train a prior over its codes" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"its latents are numbers \(Gaussian\)"):
        model.encode_codes(np.zeros((1, 8, 8, 1), np.uint8))


def test_figures_of_a_set(runs):
    """Beside their definitions, computed here."""
    images = real_examples(DATA, "image", 40)
    model = flaxgen.load(runs / "vq")
    found, drawn, x = model.measure(images), model.autoencode(images), images / 127.5 - 1
    assert found["nmse"] == pytest.approx(np.mean((drawn - x) ** 2) / x.var(), rel=1e-4)
    psnr = 10 * np.log10(4 / ((drawn - x) ** 2).mean((1, 2, 3)))
    assert found["psnr"] == pytest.approx(psnr.mean(), rel=1e-4)
    share = np.bincount(model.encode_codes(images).ravel(), minlength=6) / (40 * 16)
    assert found["used"] == pytest.approx((share > 0).mean())
    assert found["perplexity"] == pytest.approx(np.exp(-(share * np.log(np.maximum(share, 1e-30))).sum()), rel=1e-4)
    vae = flaxgen.load(runs / "vae")
    one, many = (vae.measure(images, bound)["bits_per_dim"] for bound in (1, 16))
    assert 1 < many < one < 8


def test_reconstructions_are_compared_with_what_they_were(runs, tmp_path, capsys):
    out = tmp_path / "eval.json"
    asked = ["eval", str(runs / "vq"), "--reconstruct", "--metrics", "fid", "--num", "40", "--out", str(out)]
    assert main(asked) == 0
    model, images = flaxgen.load(runs / "vq"), real_examples(DATA, "image", 40)
    flat = [x.reshape(40, -1).astype(np.float64) for x in (model.autoencode(images), images / 127.5 - 1)]
    trace = np.trace(np.cov(flat[0].T)) + np.trace(np.cov(flat[1].T))
    found = json.loads(out.read_text())
    assert 0 < found["fid"] < trace + ((flat[0].mean(0) - flat[1].mean(0)) ** 2).sum()
    assert found["reconstructed"] is True
    assert main([*asked, "--guidance", "2"]) == 2
    assert "--reconstruct is for autoencoders, without settings of drawing" in capsys.readouterr().err


def test_a_walk_a_map_and_odd_pictures(runs, tmp_path):
    model = flaxgen.load(runs / "vae")
    walk = model.interpolate(num=2, frames=5, once=True)
    ends = model.autoencode(real_examples(dataclasses.replace(DATA, split="test"), "image", 2))
    np.testing.assert_allclose(walk.arrays[[0, -1]] / 127.5 - 1, ends, atol=0.02)
    drawn = model.map(num=30, grid=3)
    assert drawn.images.shape == (1, 1000, 2000, 3)
    latents = drawn.extra["latents"].reshape(30, -1)
    _, _, axes = np.linalg.svd(latents - latents.mean(0), full_matrices=False)
    places = np.abs((latents - latents.mean(0)) @ axes[:2].T)
    np.testing.assert_allclose(np.abs(drawn.extra["places"]), places, atol=1e-4)
    usual = np.repeat(real_examples(DATA, "image", 9), 3, -1)
    odd = model.anomaly(images=[np.full((8, 8, 3), 255, np.uint8), *usual], against=50)
    assert odd.images.shape == (10, 8, 24, 1)
    assert odd.scores[0] == 1.0 > np.mean(odd.scores[1:])


@pytest.mark.slow
def test_a_map_by_a_library(runs):
    assert flaxgen.load(runs / "vq").map(num=30, method="tsne").images.shape == (1, 1000, 1000, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bottleneck": Gaussian()}, "set net.moments=True"),
        ({"net": VAE.net.clone(out_channels=1)}, "set net.moments=False"),
        ({"bottleneck": Finite((5, 5))}, "net.latent_dim=3: a Finite bottleneck of this kind needs 2"),
        ({"reconstruction": Reconstruction("logit_laplace")}, "net.out_channels=1: .* needs 2"),
        ({"noise": -1.0}, "noise=-1.0"),
    ],
)
def test_parts_that_do_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(VQ, **changes)
    with pytest.raises(ValueError, match=r"restart=0\.1 moves codes that follow averages"):
        Codebook(update="gradient", restart=0.1)
