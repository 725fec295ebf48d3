"""Extractors by name, through the engine where that is what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import unet_toy
from saving import write_model

from flaxgen import parallel, verbs
from flaxgen.data import Data, to_pixels
from flaxgen.data.tokenize import train_bpe
from flaxgen.family.evaluation import Evaluation
from flaxgen.family.files import fingerprint
from flaxgen.family.pictures import Pictures
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.measure.evaluate import evaluate
from flaxgen.measure.features import make_extractor
from flaxgen.measure.picture_sets import of_captions, of_data, of_draw, of_samples
from flaxgen.metrics import fid, mmd, moments
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.nets.inception import Inception
from flaxgen.weights import inception
from flaxgen.zoo import classifier, clip, diffusion, unclip

JIT = parallel.make_plan("jit")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
CAPTIONS = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("ball", "cube", "cone", "ring")]


def noisy(params):
    """Parameters away from the zeros that nets start with."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return treedef.unflatten([x + 0.1 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def rows(numbers):
    index = np.asarray(numbers) % len(IMAGES)
    return {"image": IMAGES[index], "text": np.array([CAPTIONS[i] for i in index], object)}


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """A classifier's model directory."""
    net = NoisyClassifier(num_classes=10, image_size=8, in_channels=1, channels=8, multipliers=(1,), depth=1,
                          attention_resolutions=(), head_channels=8, norm_groups=4)  # fmt: skip
    config = classifier.Config(seed=0, steps=1, batch_size=4, data=Data("digits", image_size=8, channels=1), net=net)
    path = tmp_path_factory.mktemp("guide") / "model"
    params = jax.jit(lambda: classifier.init_params(config, jax.random.key(0)))()
    write_model(path, config, noisy(params), 1)
    return path


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A CLIP's model directory."""
    tokenizer = train_bpe(CAPTIONS, 270, 8)
    net = CLIP(VisionTower(image_size=8, patch=4, width=16, depth=1, heads=2),
               TextTower(vocab_size=270, context=8, width=16, depth=1, heads=2), embedding_dim=10)  # fmt: skip
    config = clip.Config(seed=0, steps=1, batch_size=4, data=Data("folder"), net=net, encode_batch=12)
    path = tmp_path_factory.mktemp("clip") / "model"
    params = jax.jit(lambda: clip.init_params(config, jax.random.key(0)))()
    write_model(path, config, noisy(params), 1, {clip.TOKENIZER: tokenizer.to_json().encode()})
    return path


def test_pixels_are_in_unit_range():
    found = make_extractor("pixels").apply({}, {"image": jnp.array([[[[0], [255]]]], jnp.uint8)})["features"]
    np.testing.assert_allclose(found, [[-1, 1]])


def test_a_classifier_gives_features_and_classes(guide):
    extractor = make_extractor(f"classifier:{guide}")
    found = jax.jit(extractor.apply)(extractor.params, {"image": IMAGES})
    assert found["features"].shape == (12, 8)
    assert found["logits"].shape == (12, 10)
    assert np.std(found["features"], axis=0).min() > 1e-4
    net = verbs.load(guide).config.net
    x = jnp.float32(np.sqrt(1 - 1e-4)) * (jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1)  # of the first of 1000 times
    logits = jax.jit(net.apply)({"params": extractor.params}, x, jnp.zeros(12))
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    assert extractor.name == f"classifier:{fingerprint(extractor.params)}"
    settings = Evaluation(("is", "fid"), num=40, seed=0, batch=8, splits=2)
    result = evaluate(of_draw(rows, {})._replace(count=20), of_draw(rows, {}), extractor, settings, JIT)
    assert 1 <= result["is"] <= 10
    assert result["features"] == extractor.name


def test_clip_score_and_cmmd_are_those_of_the_model(seen):
    extractor, model = make_extractor(f"clip:{seen}"), clip.FAMILY.load(seen)
    settings = Evaluation(("clip_score", "cmmd"), num=12, seed=0, batch=8)
    pictures = of_draw(rows, {})
    result = evaluate(pictures._replace(count=12), pictures, extractor, settings, JIT)
    cosines = np.diag(model.similarity(np.repeat(IMAGES, 3, axis=-1), CAPTIONS))
    assert result["clip_score"] == pytest.approx(100 * np.maximum(cosines, 0).mean(), abs=1e-3)
    assert result["cmmd"] == pytest.approx(0, abs=1e-4)
    assert result["features"] == f"clip:{model.fingerprint}"
    silent = of_draw(lambda numbers: {"image": rows(numbers)["image"]}, {})
    with pytest.raises(ValueError, match="clip_score needs captions"):
        evaluate(None, silent, extractor, Evaluation(("clip_score",), num=12, seed=0), JIT)


def test_a_model_is_drawn_from_by_number():
    """Whatever the batch, in the pictures that `sample` gives."""
    net = unet_toy.unet(**unet_toy.GREY)
    config = diffusion.Config(
        seed=0, steps=1, batch_size=4, data=Data("digits", image_size=8, channels=1), net=net,
        process=Process(schedule="cosine", timesteps=8), sampling=Sampling(steps=2, batch=4),
    )  # fmt: skip
    params = noisy(jax.jit(lambda: diffusion.init_params(config, jax.random.key(0)))())
    model = diffusion.FAMILY.trained(config, params, 3, JIT)
    pictures = of_samples(model, diffusion.SampleDiffusion(seed=5))
    assert pictures.about["step"] == 3
    stream = pictures.read(4, 4)
    drawn = np.concatenate([next(stream)["image"] for _ in range(2)])
    np.testing.assert_array_equal(drawn, to_pixels(model.generate(jax.random.key(5), 12)[4:]))


class Recorder(unclip.Model):
    """Draws pictures that tell the caption, the seed and the place in the call that they come from."""

    def perform(self, request, progress=lambda stage: None):
        told = [
            [request.seed % 251, place, sum(map(ord, caption)) % 251] for place, caption in enumerate(request.captions)
        ]
        return Pictures(np.array(told, np.uint8)[:, None, None])

    def settings(self, request):
        return {}


def recorder():
    return Recorder({}, unclip.FAMILY)


def captioned():
    """A request whose captions are those of the data."""
    return recorder().verbs["draw"](captions=("any",), seed=3)


def test_an_unclip_draws_captions_in_groups():
    """Picture i is the same whatever the batch, and every group has a seed of its own; captions are those of the real
    pictures in their order."""
    data = Data("scenes", image_size=16, size=30, threads=0)
    pictures = of_captions(recorder(), data, captioned(), 8)

    def first(batch):
        stream = pictures.read(0, batch)
        parts = [next(stream) for _ in range(24 // batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in ("image", "text")}

    whole = first(24)
    for batch in (8, 6, 2):
        found = first(batch)
        np.testing.assert_array_equal(found["image"], whole["image"])
        assert list(found["text"]) == list(whole["text"])
    seeds, places = whole["image"][:, 0, 0, 0], whole["image"][:, 0, 0, 1]
    np.testing.assert_array_equal(places, np.tile(np.arange(8), 3))
    assert len(set(seeds)) == 3
    real = next(of_data(data, 3, captions=True).read(0, 24))
    assert list(real["text"]) == list(whole["text"])
    np.testing.assert_array_equal(whole["image"][:, 0, 0, 2], [sum(map(ord, text)) % 251 for text in real["text"]])
    with pytest.raises(ValueError, match="unclip draws captions, and digits has none"):
        of_captions(recorder(), Data("digits", channels=1), captioned(), 8)


@pytest.mark.slow
def test_inception_through_the_engine(tmp_path):
    """Random weights in the published layout: the figures are those of the net's own features and logits."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim == 1:
            return np.full(leaf.shape, path[-1].key in ("scale", "variance"), np.float32)
        return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, inception.abstract_params())
    inception.export_inception(params, tmp_path / "net.safetensors")
    extractor = make_extractor(f"inception:{tmp_path / 'net.safetensors'}")
    assert extractor.name == f"inception:{fingerprint(params)}"
    real = of_draw(lambda numbers: {"image": rows(numbers)["image"]}, {"of": 0})._replace(count=12)
    fake = of_draw(lambda numbers: {"image": rows(numbers)["image"] // 2}, {"of": 1})
    settings = Evaluation(("fid", "kid", "is"), num=12, seed=0, batch=12, splits=1, kid_subsets=1)
    found = evaluate(real, fake, extractor, settings, JIT)

    def features(images):
        return Inception().apply({"params": params}, jnp.repeat(jnp.asarray(images), 3, -1))

    ours = [jax.tree.map(np.asarray, jax.jit(features)(images)) for images in (IMAGES, IMAGES // 2)]
    expected = fid.frechet_distance(*(moments.of([side["2048"]]) for side in ours))
    assert found["fid"] == pytest.approx(expected, rel=1e-4)
    assert found["kid"] == pytest.approx(mmd.polynomial_mmd(ours[0]["2048"], ours[1]["2048"]), rel=1e-3)
    p = np.exp(ours[1]["logits_unbiased"].astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert found["is"] == pytest.approx(np.exp((p * np.log(p / p.mean(0, keepdims=True))).sum(1).mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pixel", "features='pixel' is not known: expected one of pixels, inception, classifier, clip"),
        ("pixels:x", "expected pixels, inception:FILE, clip:MODEL or classifier:MODEL"),
        ("clip", "features='clip': expected pixels"),
        ("clip:nowhere", "nowhere is no run or model directory"),
        ("inception:nowhere", "there is no nowhere: download"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises((ValueError, OSError), match=message):
        make_extractor(name)


def test_a_classifier_reads_pictures_of_its_size(guide):
    extractor = make_extractor(f"classifier:{guide}")
    with pytest.raises(ValueError, match=r"reads \(8, 8, 1\), these pictures are \(6, 8, 1\): set image_size"):
        extractor.apply(extractor.params, {"image": jnp.zeros((2, 6, 8, 1), jnp.uint8)})


def test_a_net_of_another_family_is_refused(seen):
    with pytest.raises(ValueError, match="is of type Clip: expected a run or model directory of type Classifier"):
        make_extractor(f"classifier:{seen}")
