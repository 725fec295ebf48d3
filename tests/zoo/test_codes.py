"""Priors over codes as a family: every net trains and draws, pictures are completed, what does not fit is refused."""

import dataclasses

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
from flaxgen.nets.code_transformer import CodeTransformer, MaskedCodeTransformer
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelcnn_plus import PixelCNNPlus
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.nets.vqvae import VqVae
from flaxgen.zoo import autoencoder
from flaxgen.zoo.codes import FAMILY, Config, Drawing

DATA = Data(source="digits", image_size=8, channels=1, threads=0)
VQ = autoencoder.Config(
    seed=0,
    steps=1,
    batch_size=16,
    log_every=1,
    preview_every=0,
    data=DATA,
    net=VqVae(image_size=8, in_channels=1, factor=2, channels=4, residual_channels=4, depth=1, latent_channels=3),
    bottleneck=autoencoder.Codebook(codes=6),
)
GRID = {"height": 4, "width": 4, "codes": 6}
PIXELS = {"height": 8, "width": 8, "codes": 17, "pixel_channels": 1}
TRANSFORMER = CodeTransformer(**GRID, num_classes=11, features=8, depth=1, heads=2, dropout=0.1)
NETS = {
    "transformer": TRANSFORMER,
    "masked": MaskedCodeTransformer(**GRID, num_classes=11, features=8, depth=1, heads=2),
    "gated": PixelCNN(**GRID, channels=4, depth=2, out_channels=8),
    "snail": PixelSNAIL(**GRID, channels=4, blocks=1, depth=1, key_channels=2, value_channels=4),
    "gated pixels": PixelCNN(**PIXELS, channels=4, depth=2, out_channels=8),
    "plus": PixelCNNPlus(**PIXELS, logistics=2, channels=4, depth=1, resolutions=2),
}


def config_of(net, run=""):
    labelled = net.num_classes > 0
    path = "" if getattr(net, "pixel_channels", 0) else str(run)
    return Config(
        seed=0, steps=2, batch_size=16, log_every=1, preview_every=0, checkpoint_every=2, data=DATA, net=net,
        autoencoder=path, condition_dropout=0.1 if labelled else 0.0, drawing=Drawing(steps=3, batch=8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An autoencoder after one step."""
    workdir = tmp_path_factory.mktemp("runs") / "vq"
    verbs.train(VQ, workdir, parallel.make_plan("jit"))
    return workdir


@pytest.fixture(scope="module")
def prior(run, tmp_path_factory):
    """A transformer after two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "prior"
    verbs.train(config_of(TRANSFORMER, run), workdir, parallel.make_plan("jit"))
    return workdir


@pytest.mark.parametrize("name", NETS)
def test_every_net_learns_from_a_batch_and_draws_by_number(name, run):
    """Pictures 2 and 3 are the same in a batch of two as in one of four, and stay in range."""
    config = config_of(NETS[name], run)
    init, make_step = FAMILY.training(config)
    spec = FAMILY.batch_spec(config)
    rng = np.random.default_rng(0)
    batch = {n: rng.integers(0, 6, s.shape).astype(s.dtype) for n, s in spec.items()}
    state, metrics = jax.jit(make_step(None))(init(jax.random.key(0)), batch, jax.random.key(1))
    assert np.isfinite(metrics["loss"])
    if name == "transformer":  # logits begin at 0
        assert float(metrics["loss"]) == pytest.approx(np.log(6), rel=1e-5)
    model = FAMILY.trained(config, state.params)
    a = model.draw_codes(jax.random.key(2), range(4))
    b = model.draw_codes(jax.random.key(2), range(2, 4), label=None)
    np.testing.assert_array_equal(a[2:], b)
    assert a.min() >= 0
    assert a.max() < NETS[name].codes
    known = (np.full(a.shape[1:], 3), 2)
    completed = model.draw_codes(jax.random.key(2), range(2), known=known)
    np.testing.assert_array_equal(completed[:, :2], 3)


def test_a_prior_draws_what_its_codes_stand_for(prior, run, tmp_path, capsys):
    model, vq = flaxgen.load(prior), flaxgen.load(run)
    drawn = model.sample(num=4, label=3, guidance=2.0, temperature=0.5, top_k=3, top_p=0.9)
    assert drawn.about["settings"]["guidance"] == 2.0
    expected = vq.decode_codes(drawn.extra["codes"])
    np.testing.assert_array_equal(drawn.images, np.clip(np.round((expected + 1) * 127.5), 0, 255).astype(np.uint8))
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8), dtype=np.uint8)).save(picture)
    out = tmp_path / "out.npz"
    assert main(["sample", str(prior), "--complete", str(picture), "--rows", "3", "--num", "2", "--out", str(out)]) == 0
    kept = vq.encode_codes(np.asarray(Image.open(picture))[None, ..., None])
    with np.load(out) as stored:
        np.testing.assert_array_equal(stored["codes"][:, :3], np.repeat(kept[:, :3], 2, 0))
    for arguments, said in (
        (["--rows", "2"], "--rows 2 are of a picture to complete: give --complete too"),
        (["--complete", str(picture), "--rows", "4"], "rows=4: expected 1 to 3 of the 4 rows"),
        (["--class", "10"], "label=10: expected a class from 0 to 9"),
    ):
        assert main(["sample", str(prior), *arguments, "--out", str(out)]) == 2
        assert said in capsys.readouterr().err


def test_guidance_and_temperature_zero(prior):
    """The likeliest codes depend on the label alone, and guidance by 1 is none."""
    model, key = flaxgen.load(prior), jax.random.key(0)
    params = dict(model.params, out={**model.params["out"], "kernel": jax.random.normal(key, (8, 6))})
    model = dataclasses.replace(model, params=params)
    cold = Drawing(temperature=0.0, batch=8)
    a = model.draw_codes(jax.random.key(1), range(3), label=4, drawing=cold)
    np.testing.assert_array_equal(a, np.repeat(a[:1], 3, 0))
    codes = jnp.asarray(a[:1])
    logits = model.config.net.apply({"params": params}, codes, jnp.array([4]))
    np.testing.assert_array_equal(jnp.argmax(logits, -1), codes)
    strong = model.draw_codes(jax.random.key(1), range(1), label=4, drawing=dataclasses.replace(cold, guidance=9.0))
    both = model.config.net.apply({"params": params}, jnp.repeat(jnp.asarray(strong), 2, 0), jnp.array([4, 10]))
    np.testing.assert_array_equal(jnp.argmax(both[1] + 9 * (both[0] - both[1]), -1), strong[0])


def test_another_autoencoder_is_refused(prior, run, tmp_path, capsys):
    """A codebook of other vectors, one of another size, none at all."""
    other = dataclasses.replace(VQ, seed=5)
    verbs.train(other, tmp_path / "other", parallel.make_plan("jit"))
    config = config_of(TRANSFORMER, tmp_path / "other")
    with pytest.raises(ValueError, match="this stage was trained with the autoencoder"):
        verbs.train(dataclasses.replace(config, steps=3), prior, parallel.make_plan("jit"))
    for net, said in (
        (TRANSFORMER.clone(codes=7), "net.codes=7, the autoencoder has 6: set net.codes=6"),
        (TRANSFORMER.clone(height=3), "maps of 3 x 4 codes, the autoencoder.s is 4 x 4"),
    ):
        with pytest.raises(ValueError, match=said):
            verbs.train(config_of(net, run), tmp_path / "run", parallel.make_plan("jit"))
    plain = dataclasses.replace(
        VQ, net=DenseAutoencoder(image_size=8, in_channels=1, widths=(4,)), bottleneck=autoencoder.Bottleneck()
    )
    verbs.train(plain, tmp_path / "plain", parallel.make_plan("jit"))
    with pytest.raises(ValueError, match="this autoencoder has no codes"):
        verbs.train(config_of(TRANSFORMER, tmp_path / "plain"), tmp_path / "run", parallel.make_plan("jit"))
    with pytest.raises(ValueError, match="autoencoder is not set: train a"):
        verbs.train(config_of(TRANSFORMER), tmp_path / "run", parallel.make_plan("jit"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"condition_dropout": 0.1, "net": NETS["gated"]}, "hides labels, and this net has none"),
        ({"data": dataclasses.replace(DATA, flip=True)}, "their codes are computed once"),
        ({"net": NETS["plus"], "condition_dropout": 0.0}, "reads pixels, leave one of them out"),
        ({"smoothing": 1.0}, "smoothing=1.0: expected a share below 1"),
    ],
)
def test_parts_that_do_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(config_of(TRANSFORMER, "runs/vq"), **changes)
    with pytest.raises(ValueError, match=r"top_p=0.0: expected a share in \(0, 1\]"):
        Drawing(top_p=0.0)


def test_the_likelihood_of_pictures_is_that_of_their_codes(prior, run, tmp_path, capsys):
    """Nats by the net and its softmax, here; of pixels in bits a number."""
    model, vq = flaxgen.load(prior), flaxgen.load(run)
    scores = model.likelihood(num=5).scores
    test = dataclasses.replace(DATA, split="test")
    images, labels = (real_examples(test, field, 5) for field in ("image", "label"))
    codes = vq.encode_codes(images)
    logits = model.config.net.apply({"params": model.params}, jnp.asarray(codes), jnp.asarray(labels))
    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), codes[..., None], -1)
    np.testing.assert_allclose(scores, -chosen.mean((1, 2, 3)) / np.log(2), rtol=1e-4)
    config = config_of(NETS["plus"])
    plus = FAMILY.trained(config, FAMILY.init_params(config, jax.random.key(0)))
    found = plus.likelihood(images=[images[0]])
    assert found.note.endswith("bits a number of the pictures")
    assert len(found.scores) == 1
    picture = tmp_path / "a.png"
    Image.fromarray(images[0, ..., 0]).save(picture)
    for arguments, said in (
        (["likelihood", str(prior), str(picture)], "this model knows 10 classes: say that of the pictures with label"),
        (["likelihood", str(prior), "--class", "3"], "label is for pictures"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "x.png")]) == 2
        assert said in capsys.readouterr().err
    masked = FAMILY.trained(config_of(NETS["masked"], run), {})
    with pytest.raises(ValueError, match="a masked net fills in codes in any order"):
        masked.likelihood_of(codes)
