"""Autoencoders that compare pictures through another net: LPIPS, a CLIP, a classifier; and what is refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.data import Data, unit_range
from flaxgen.family import perceptual
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.nets.clip import CLIP, VisionTower
from flaxgen.nets.lpips import Lpips
from flaxgen.nets.vqvae import VqVae
from flaxgen.train import checkpoint
from flaxgen.weights import lpips, store
from flaxgen.weights.rules import from_params
from flaxgen.weights.tree import flatten
from flaxgen.zoo import classifier, clip
from flaxgen.zoo.autoencoder import (
    FAMILY,
    Adversary,
    Codebook,
    Config,
    Perceptual,
    Reconstruction,
    training,
)
from flaxgen.zoo.autoencoder.training import EXTRACTING

CONFIG = Config(
    seed=0,
    steps=2,
    batch_size=8,
    log_every=1,
    preview_every=0,
    data=Data(source="digits", image_size=8, channels=1, threads=0),
    net=VqVae(image_size=8, in_channels=1, factor=2, channels=4, residual_channels=2, depth=1, latent_channels=2),
    bottleneck=Codebook(codes=8),
    reconstruction=Reconstruction(loss="absolute"),
)
SMALL = Lpips(widths=((2,), (3, 3), (4,)))
JIT = parallel.make_plan("jit")


@pytest.fixture
def narrow(monkeypatch):
    """LPIPS on a net that is three groups deep and a few channels wide."""
    monkeypatch.setattr(perceptual, "Lpips", functools.partial(Lpips, widths=SMALL.widths))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """LPIPS' parameters, and the file that they are in."""
    params = random_weights.draw_like(lpips.abstract_params(SMALL))
    params |= {name: np.abs(value) for name, value in params.items() if name.startswith("weight_")}
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    store.write_file(path, dict(from_params(lpips.rules_for(SMALL), flatten(params))))
    return params, path


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A CLIP and a classifier that read grey pictures of 8 pixels, as model directories."""
    root = tmp_path_factory.mktemp("nets")
    vision = VisionTower(image_size=8, patch=4, width=8, depth=1, heads=2)
    eyes = clip.Config(seed=0, steps=1, batch_size=4, data=Data("folder"), net=CLIP(vision, None, embedding_dim=6))
    net = NoisyClassifier(num_classes=10, image_size=8, in_channels=1, channels=8, multipliers=(1,), depth=1,
                          attention_resolutions=(), head_channels=8, norm_groups=4)  # fmt: skip
    guide = classifier.Config(seed=0, steps=1, batch_size=4, data=Data("digits", image_size=8, channels=1), net=net)
    for name, family, config in (("clip", clip.FAMILY, eyes), ("classifier", classifier.FAMILY, guide)):
        write_model(root / name, config, random_weights.draw_like(family.abstract_params(config)), 1)
    return root


def pictures():
    x = unit_range(jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)))
    return x, 0.7 * x + 0.1


def looking(net, **more):
    return dataclasses.replace(CONFIG, perceptual=Perceptual(net, **more))


def test_lpips_is_the_nets_own_of_grey_pictures_seen_as_colour(weights, narrow):
    params, path = weights
    x, y = pictures()
    frozen = jax.tree.map(jnp.asarray, perceptual.frozen_weights(f"lpips:{path}", EXTRACTING))
    found = perceptual.make_distance(f"lpips:{path}", EXTRACTING)(frozen, x, y)
    colour = [jnp.repeat(pictures, 3, -1) for pictures in (x, y)]
    np.testing.assert_allclose(found, SMALL.apply({"params": jax.tree.map(jnp.asarray, params)}, *colour), rtol=1e-5)
    assert float(found.min()) > 0


@pytest.mark.parametrize("kind", ["clip", "classifier"])
def test_features_are_compared_and_have_a_gradient(nets, kind):
    """The distance is 0 of the same pictures, 1 where the drawn one has no features, and falls along its gradient."""
    net, (x, y) = f"{kind}:{nets / kind}", pictures()
    frozen, distance = perceptual.frozen_weights(net, EXTRACTING), perceptual.make_distance(net, EXTRACTING)

    @jax.jit
    def both(y):
        return jax.value_and_grad(lambda y: distance(frozen, x, y).sum())(y)

    value, gradient = both(y)
    features = EXTRACTING[kind].load(nets / kind).extractor.apply(frozen, {"image": x})["features"]
    other = EXTRACTING[kind].load(nets / kind).extractor.apply(frozen, {"image": y})["features"]
    meant = (np.square(features - other).sum(-1) / np.square(features).sum(-1)).sum()
    assert float(value) == pytest.approx(float(meant), rel=1e-3)
    assert float(distance(frozen, x, x).max()) == 0
    assert float(both(y - 1e-2 * gradient / jnp.abs(gradient).max())[0]) < float(value)


@pytest.mark.parametrize("learn_variance", [False, True])
def test_the_cost_is_the_sum_of_both_over_the_variance(weights, narrow, learn_variance):
    """(L1 + w LPIPS) / e^s + s, of latent diffusion's code."""
    params, path = weights
    config = dataclasses.replace(
        looking(f"lpips:{path}", weight=0.5),
        reconstruction=Reconstruction(loss="absolute", learn_variance=learn_variance),
    )
    x, y = pictures()
    own = {"log_variance": jnp.float32(0.3)} if learn_variance else {}
    frozen = jax.tree.map(jnp.asarray, params)
    cost, metrics = training.reconstruction(config, own, frozen, x, y)
    through = perceptual.make_distance(f"lpips:{path}", EXTRACTING)(frozen, x, y).mean()
    total = jnp.abs(x - y).mean() + 0.5 * through
    assert float(cost) == pytest.approx(float(total / jnp.exp(0.3) + 0.3 if learn_variance else total), rel=1e-5)
    assert float(metrics["perceptual"]) == pytest.approx(float(through), rel=1e-5)


@pytest.mark.parametrize(
    "adversary",
    [
        pytest.param(Adversary(), id="plain", marks=pytest.mark.slow),
        pytest.param(Adversary("patches", width=2, depth=1), id="game"),
    ],
)
def test_a_run_keeps_the_nets_weights_once_and_does_not_move_them(weights, narrow, tmp_path, adversary):
    """Also where its second half is another process, whose file has become another: the weights are the run's own."""
    params, path = weights
    mine = tmp_path / "lpips.safetensors"
    mine.write_bytes(path.read_bytes())
    config = dataclasses.replace(looking(f"lpips:{mine}"), adversary=adversary)
    verbs.train(dataclasses.replace(config, steps=1), tmp_path / "run", JIT)
    other = jax.tree.map(lambda leaf: 2 * leaf, params)
    store.write_file(mine, dict(from_params(lpips.rules_for(SMALL), flatten(other))))
    verbs.train(config, tmp_path / "run", JIT)
    _, saved = checkpoint.read(tmp_path / "run" / "checkpoints", ("held",))
    jax.tree.map(np.testing.assert_array_equal, saved["held"]["frozen"], params)
    assert len(list((tmp_path / "run" / "checkpoints").glob("frozen-*"))) == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["perceptual"] > 0 for line in lines)
    assert lines[0]["loss"] == pytest.approx(
        lines[0]["reconstruction"] + lines[0]["perceptual"] + 0.25 * lines[0]["commitment"], rel=1e-4
    )


def test_a_missing_file_is_one_line_that_names_the_other_choices(tmp_path):
    config = looking(f"lpips:{tmp_path / 'none.safetensors'}")
    with pytest.raises(ValueError, match=r"there is no such file; .* or choose clip:MODEL, classifier:MODEL") as error:
        verbs.train(config, tmp_path / "run", JIT)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert FAMILY.training(config)  # shapes need no file


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("vgg", "net='vgg': expected none, lpips:FILE, clip:MODEL or classifier:MODEL"),
        ("lpips:", "net='lpips:': expected none, lpips:FILE"),
        ("inception:pt_inception.pth", "Inception reads 8-bit pictures, which have no gradient; expected none"),
    ],
)
def test_nets_that_cannot_be_looked_through(net, message):
    with pytest.raises(ValueError, match=message):
        Perceptual(net)


def test_weights_out_of_range():
    with pytest.raises(ValueError, match=r"weight=0\.0: expected a number above 0"):
        Perceptual(weight=0.0)
