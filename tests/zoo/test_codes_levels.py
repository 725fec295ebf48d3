"""Priors over both levels of a VQ-VAE-2, and all parts together: top, bottom, picture, and what does not fit."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from dalle_toy import write_random

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Data, open_source, to_pixels
from flaxgen.family.matching import real_examples
from flaxgen.family.pictures import Pictures
from flaxgen.nets.code_condition import CodeMap
from flaxgen.nets.code_transformer import CodeTransformer
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.nets.vqvae import VqVae
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train import checkpoint
from flaxgen.zoo import autoencoder
from flaxgen.zoo.codes import FAMILY, Config, Drawing

DATA = Data(source="digits", image_size=8, channels=1, threads=0)
SMALL: Any = {"image_size": 8, "in_channels": 1, "factor": 2, "channels": 4, "residual_channels": 4, "depth": 0}
RUN: Any = {"seed": 0, "batch_size": 16, "log_every": 1, "preview_every": 0, "data": DATA}
VQ = autoencoder.Config(
    **RUN,
    steps=1,
    net=VqVae2(**SMALL, top_factor=4, latent_channels=3),
    bottleneck=autoencoder.Levels(autoencoder.Codebook(codes=5), autoencoder.Codebook(codes=6)),
)
TOP = PixelSNAIL(
    height=2, width=2, codes=5, num_classes=11, channels=4, blocks=1, depth=1, key_channels=2, value_channels=4
)
GIVEN = CodeMap(height=2, width=2, codes=5, channels=4, depth=1)
BOTTOM = PixelCNN(height=4, width=4, codes=6, num_classes=11, channels=4, depth=2, out_channels=8, condition=GIVEN)
NETS = {"top": TOP, "bottom": BOTTOM}


def config_of(level, place="", **changes):
    config = Config(
        **RUN, steps=2, checkpoint_every=1, net=NETS[level], level=level, autoencoder=str(place), condition_dropout=0.1,
        drawing=Drawing(batch=4),
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Model directories of random weights: the autoencoder and a prior for each level."""
    folder = tmp_path_factory.mktemp("parts")
    write_random(folder / "autoencoder", VQ)
    for level in NETS:
        write_random(folder / level, config_of(level, folder / "autoencoder"), strength=3.0)
    return folder


def compose(target, parts, **others):
    given = {name: parts / name for name in ("autoencoder", *NETS)} | others
    return main(["compose", str(target), *(f"{name}={path}" for name, path in given.items())])


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("composed") / "vqvae2"
    assert compose(folder, parts) == 0
    return folder


@pytest.mark.parametrize("level", NETS)
def test_a_prior_reads_its_level_of_the_data(level, parts):
    """The bottom's is given the top's codes of the same pictures, and their labels."""
    config = config_of(level, parts / "autoencoder")
    files = FAMILY.prepare(config, {})
    source = FAMILY.open_source(FAMILY, config, files)
    vq = flaxgen.load(parts / "autoencoder")
    examples = [open_source(DATA)[i] for i in range(3)]
    codes = vq.encode_codes(np.stack([example["image"] for example in examples]))
    for i in range(3):
        np.testing.assert_array_equal(source[i]["codes"], codes[level][i])
        assert source[i]["label"] == examples[i]["label"]
        if level == "bottom":
            np.testing.assert_array_equal(source[i]["condition"], codes["top"][i])
    assert {"codes", "label"} | ({"condition"} if level == "bottom" else set()) == FAMILY.batch_spec(config).keys()


@pytest.mark.slow
@pytest.mark.parametrize("level", NETS)
def test_a_resumed_run_is_the_run(level, parts, tmp_path):
    states = []
    for name, stops in (("whole", (2,)), ("resumed", (1, 2))):
        for steps in stops:
            config = config_of(level, parts / "autoencoder", steps=steps)
            verbs.train(config, tmp_path / name, parallel.make_plan("jit"))
        states.append(checkpoint.read(tmp_path / name / "checkpoints", ("params", "opt_state")))
    assert states[0][0] == states[1][0] == 2
    assert jax.tree.all(jax.tree.map(np.array_equal, states[0][1], states[1][1]))


def test_previews_show_the_top_alone_and_the_bottom_for_examples(parts):
    vq, key = flaxgen.load(parts / "autoencoder"), jax.random.key(0)
    top, bottom = (flaxgen.load(parts / level) for level in NETS)
    drawn = vq.decode_top(top.draw_codes(key, range(16)))
    np.testing.assert_array_equal(FAMILY.preview(top, key), Pictures(to_pixels(drawn)).sheet())
    examples = vq.encode_codes(real_examples(DATA, "image", 16))["top"]
    codes = bottom.draw_codes(key, range(16), condition=examples)
    drawn = vq.decode_codes({"top": examples, "bottom": codes})
    np.testing.assert_array_equal(FAMILY.preview(bottom, key), Pictures(to_pixels(drawn)).sheet())
    with pytest.raises(ValueError, match="needs the condition 'condition'"):
        bottom.draw_codes(key, range(2))


def test_the_bottom_learns_of_what_it_is_given(parts):
    """The gradient reaches the blocks that read the top, and the loss is that of the formula."""
    config = config_of("bottom", parts / "autoencoder", condition_dropout=0.0, net=BOTTOM.clone(num_classes=10))
    params = random_weights.draw_like(FAMILY.abstract_params(config))
    rng = np.random.default_rng(0)
    spec = FAMILY.batch_spec(config).items()
    batch = {n: jnp.asarray(rng.integers(0, 5, s.shape), s.dtype) for n, s in spec}
    loss = jax.jit(jax.value_and_grad(FAMILY.make_loss(config, {}), has_aux=True))
    (value, _), grads = loss(params, batch, jax.random.split(jax.random.key(0), 16))
    logits = config.net.apply({"params": params}, batch["codes"], batch["label"], batch["condition"])
    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), batch["codes"][..., None], -1)
    assert float(value) == pytest.approx(-chosen.mean(), rel=1e-4)
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads["condition_map"])) > 0


def logits_of(model, codes, label, **given):
    labels = jnp.full(len(codes), label)
    return np.asarray(model.config.net.apply({"params": model.params}, jnp.asarray(codes), labels, **given))


def test_the_top_is_drawn_then_the_bottom_given_it_then_the_picture(whole):
    """The likeliest codes are those of either net."""
    model = flaxgen.load(whole)
    drawn = model.sample(num=4, label=4, temperature=0.0)
    top, bottom = drawn.extra["top"], drawn.extra["bottom"]
    assert (top.shape, bottom.shape) == ((4, 2, 2), (4, 4, 4))
    np.testing.assert_array_equal(logits_of(model.parts["top"], top, 4).argmax(-1), top)
    given = {"condition": jnp.asarray(top)}
    np.testing.assert_array_equal(logits_of(model.parts["bottom"], bottom, 4, **given).argmax(-1), bottom)
    pictures = model.parts["autoencoder"].decode_codes({"top": top, "bottom": bottom})
    np.testing.assert_array_equal(drawn.images, to_pixels(pictures))
    assert drawn.about["settings"]["temperature_bottom"] == 0.0


@pytest.mark.slow
def test_guidance_is_of_both_levels(whole):
    model = flaxgen.load(whole)
    strong = model.sample(num=4, label=4, temperature=0.0, guidance=9.0).extra
    for level, given in (("top", {}), ("bottom", {"condition": jnp.asarray(strong["top"])})):
        label, null = (logits_of(model.parts[level], strong[level], label, **given) for label in (4, 10))
        np.testing.assert_array_equal((null + 9 * (label - null)).argmax(-1), strong[level])


def test_pictures_are_drawn_by_number_and_upper_rows_are_kept(whole):
    model, vq = flaxgen.load(whole), flaxgen.load(whole).parts["autoencoder"]
    a, b = model.sample(num=4, seed=3), model.sample(num=4, first=2, seed=3)
    for level in NETS:
        np.testing.assert_array_equal(a.extra[level][2:], b.extra[level][:2])
        assert len({codes.tobytes() for codes in a.extra[level]}) > 1
    picture = real_examples(DATA, "image", 1)
    kept = vq.encode_codes(picture)
    completed = model.sample(num=4, complete=picture[0], rows=1).extra
    np.testing.assert_array_equal(completed["top"][:, :1], np.repeat(kept["top"][:, :1], 4, 0))
    np.testing.assert_array_equal(completed["bottom"][:, :2], np.repeat(kept["bottom"][:, :2], 4, 0))
    np.testing.assert_array_equal(model.generate(jax.random.key(3), 4), vq.decode_codes(a.extra))


def test_the_likelihood_of_the_bottom_is_given_the_top(parts):
    model, vq = flaxgen.load(parts / "bottom"), flaxgen.load(parts / "autoencoder")
    scores = model.likelihood(num=3).scores
    images, labels = (real_examples(dataclasses.replace(DATA, split="test"), field, 3) for field in ("image", "label"))
    codes = vq.encode_codes(images)
    logits = model.config.net.apply(
        {"params": model.params}, jnp.asarray(codes["bottom"]), jnp.asarray(labels), jnp.asarray(codes["top"])
    )
    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), codes["bottom"][..., None], -1)
    np.testing.assert_allclose(scores, -chosen.mean((1, 2, 3)) / np.log(2), rtol=1e-4)


def refused(arguments, capsys):
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_parts_that_do_not_belong_together(parts, whole, tmp_path, capsys):
    other = flaxgen.load(parts / "autoencoder")
    moved = {**other.params, "bottom": {"codebook": -other.params["bottom"]["codebook"]}}
    other.family.write_model(tmp_path / "other", VQ, moved, 1)
    plain = dataclasses.replace(VQ, net=VqVae(**SMALL), bottleneck=autoencoder.Codebook(codes=6))
    write_random(tmp_path / "plain", plain)
    names = [f"{name}={parts / name}" for name in ("autoencoder", *NETS)]
    for changed, said in (
        (f"autoencoder={tmp_path / 'other'}", "this stage was trained with the autoencoder"),
        (f"autoencoder={tmp_path / 'plain'}", "has the net VqVae: expected VqVae2"),
        (f"top={parts / 'bottom'}", "part top draws the bottom level of two: expected a prior with level=top"),
        (f"bottom={parts / 'top'}", "part bottom draws the top level of two: expected a prior with level=bottom"),
    ):
        given = [changed if changed.split("=")[0] == name.split("=")[0] else name for name in names]
        assert said in refused(["compose", str(tmp_path / "x"), *given], capsys)
    assert main(["compose", str(tmp_path / "half"), names[0], names[2]]) == 0
    out = ["--num", "1", "--out", str(tmp_path / "x.png")]
    for arguments, said in (
        ([str(tmp_path / "half")], "this model lacks the part 'top'"),
        ([str(parts / "top")], "this draws the top map of codes alone: draw with the model that `flaxgen compose"),
        ([str(whole), "--class", "10"], "label=10: expected a class from 0 to 9"),
        ([str(whole), "--rows", "1"], "--rows 1 are of a picture to complete"),
        ([str(whole), "--top-p", "0"], "top-p"),
    ):
        assert said in refused(["sample", *arguments, *out], capsys)


@pytest.mark.parametrize(
    ("level", "net", "said"),
    [
        ("top", TOP.clone(codes=6), "net.codes=6, the autoencoder has 5: set net.codes=5"),
        ("top", TOP.clone(height=4, width=4), "the net is for maps of 4 x 4 codes, the autoencoder's is 2 x 2"),
        ("bottom", BOTTOM.clone(height=2, width=2), "the net is for maps of 2 x 2 codes, the autoencoder's is 4 x 4"),
        (
            "bottom",
            BOTTOM.clone(condition=dataclasses.replace(GIVEN, codes=6)),
            "net.condition.codes=6, the autoencoder has 5: set net.condition.codes=5",
        ),
        ("", TOP, "the autoencoder has two maps of codes, top and bottom, and this model reads one alone"),
    ],
)
def test_nets_for_other_maps_are_refused(level, net, said, parts):
    config = dataclasses.replace(config_of("top", parts / "autoencoder"), level=level, net=net)
    with pytest.raises(ValueError, match=said):
        FAMILY.prepare(config, {})


@pytest.mark.parametrize(
    ("level", "net", "said"),
    [
        ("bottom", TOP, "level='bottom' with net.condition=None: the bottom is drawn given the top"),
        ("top", BOTTOM, "level='top' with net.condition=CodeMap"),
        ("bottom", CodeTransformer(num_classes=11), "which PixelCNN and PixelSNAIL have"),
        ("top", TOP.clone(pixel_channels=1), "level=top: a net with net.pixel_channels reads pixels"),
    ],
)
def test_fields_that_do_not_fit(level, net, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(config_of("top"), level=level, net=net)
