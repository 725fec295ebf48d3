"""A model's verbs, and what a run refuses before it begins."""

import dataclasses

import jax
import numpy as np
import pytest
import unet_toy

from flaxgen import parallel
from flaxgen.data import Data, to_pixels
from flaxgen.family import matching
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.zoo import classifier, diffusion
from flaxgen.zoo.diffusion import FAMILY, Config

NET = unet_toy.unet(**unet_toy.GREY, num_classes=11)
CONFIG = Config(
    seed=0,
    steps=1,
    batch_size=4,
    data=Data(source="digits", image_size=8, channels=1),
    net=NET,
    process=Process(schedule="cosine", timesteps=8, prediction="v"),
    objective=Objective(condition_dropout=0.1),
    sampling=Sampling(steps=2, batch=4),
)
GUIDE = classifier.Config(
    seed=0,
    steps=1,
    batch_size=4,
    data=CONFIG.data,
    net=NoisyClassifier(num_classes=10, image_size=8, in_channels=1, channels=8, multipliers=(1,), depth=1,
                        attention_resolutions=(), head_channels=8, norm_groups=4),
    process=CONFIG.process,
)  # fmt: skip


def noisy(params):
    """Parameters away from the zeros that nets start with, so that conditions matter."""
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return treedef.unflatten([x + 0.1 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


@pytest.fixture(scope="module")
def model():
    params = noisy(jax.jit(lambda: diffusion.init_params(CONFIG, jax.random.key(0)))())
    return FAMILY.trained(CONFIG, params, 0, parallel.make_plan("jit"))


@pytest.fixture(scope="module")
def guide():
    params = noisy(jax.jit(lambda: classifier.init_params(GUIDE, jax.random.key(1)))())
    return classifier.FAMILY.trained(GUIDE, params, 0, parallel.make_plan("jit"))


def draw(model, *, guidance=None, **settings):
    if guidance is not None:
        settings["sampling"] = dataclasses.replace(model.config.sampling, guidance=guidance)
    return model.generate(jax.random.key(0), num=4, **settings)


def test_strengths_do_not_compile_again(model, capsys):
    draw(model, label=1, sampling=Sampling(steps=2, batch=4, guidance=2.0, eta=0.5))
    capsys.readouterr()
    for settings in ({"guidance": 3.0, "eta": 1.0}, {"guidance": 0.5, "rescale": 0.7}, {"guidance": 9.0}):
        draw(model, label=2, sampling=Sampling(steps=2, batch=4, **settings))
    assert "compiling" not in capsys.readouterr().err


def test_label_and_guidance_matter_and_pictures_are_in_range(model):
    plain, other, guided = draw(model, label=1), draw(model, label=2), draw(model, label=1, guidance=4.0)
    assert np.abs(plain).max() <= 1
    assert np.abs(plain - other).max() > 1e-3
    assert np.abs(plain - guided).max() > 1e-3
    all_in_turn = draw(model)
    np.testing.assert_allclose(all_in_turn[1], plain[1], atol=1e-6)
    np.testing.assert_allclose(all_in_turn[2], other[2], atol=1e-6)


def test_a_range_of_numbers_is_that_part_of_the_whole(model):
    """Keys and labels follow the numbers, so pictures can be drawn a part at a time."""
    whole, part = model.generate(jax.random.key(0), num=8), model.generate(jax.random.key(0), num=range(3, 7))
    np.testing.assert_allclose(part, whole[3:7], atol=1e-6)
    with pytest.raises(ValueError, match="num=0: expected 1 or more"):
        model.generate(jax.random.key(0), num=range(3, 3))


def test_an_interval_of_guidance_lies_between_none_and_all(model):
    """Guided in the first of two steps only: neither the plain picture nor the guided one."""
    some = draw(model, label=1, sampling=Sampling(steps=2, batch=4, guidance=4.0, interval=(0.6, 1.0)))
    for other in (draw(model, label=1), draw(model, label=1, guidance=4.0)):
        assert np.abs(some - other).max() > 1e-4


def test_a_classifier_guides(model, guide):
    plain, same, guided = (draw(model, label=3, guide=(guide, scale)) for scale in (0.0, 0.0, 3.0))
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_allclose(plain, draw(model, label=3), atol=1e-5)
    assert np.abs(plain - guided).max() > 1e-4


def test_a_classifier_of_another_process_is_refused(model, guide):
    other = dataclasses.replace(guide, config=dataclasses.replace(GUIDE, process=Process(timesteps=500)))
    with pytest.raises(ValueError, match="the classifier knows the noise of"):
        draw(model, guide=(other, 1.0))


def test_bits_per_dim_is_of_the_given_labels(model):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    with_labels = model.bits_per_dim(images, jax.random.key(0), 8, labels=np.full(5, 3))
    others = model.bits_per_dim(images, jax.random.key(0), 8, labels=np.full(5, 4))
    unlabelled = model.bits_per_dim(images, jax.random.key(0), 8)
    assert with_labels.total.shape == (5,)
    assert with_labels.terms.shape == (5, 8)
    np.testing.assert_allclose(with_labels.total, with_labels.prior + with_labels.terms.sum(1), rtol=1e-5)
    assert np.abs(with_labels.total - others.total).max() > 1e-4
    assert np.abs(with_labels.total - unlabelled.total).max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": NET.clone(num_classes=10)}, "the data has 10 classes and the net knows 9"),
        ({"net": NET.clone(out_channels=3)}, "puts out"),
        ({"sampling": Sampling(steps=9)}, "steps=9 is more than"),
        ({"sampling": Sampling(sampler="ddpm", variance="learned", steps=2)}, "needs net.learned_variance"),
        ({"objective": Objective(), "sampling": Sampling(guidance=3.0, steps=2)}, "needs a model trained with"),
        ({"data": Data(source="moons", flip=True)}, "are for images"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(change, message):
    with pytest.raises(ValueError, match=message):
        FAMILY.build(dataclasses.replace(CONFIG, **change), {})


def test_random_crops_fit(tmp_path):
    data = dataclasses.replace(CONFIG.data, resize=10, random_crop=True)
    experiment = FAMILY.build(dataclasses.replace(CONFIG, data=data), {})
    assert experiment.source[0]["image"].shape == (10, 10, 1)
    assert matching.real_examples(data, "image", 3).shape == (3, 8, 8, 1)


@pytest.mark.parametrize("label", [3, -1, -6])
def test_labels_are_checked_as_they_are_read(label):
    source = matching.LabelsChecked([{"label": np.int32(2)}, {"label": np.int32(label)}], 3)
    assert source[0]["label"] == 2
    with pytest.raises(ValueError, match=f"element 1 has label {label}, and the net knows 0 to 2"):
        source[1]


def test_so_are_those_of_data_that_know_their_classes(monkeypatch):
    class Source(list):
        num_classes = 3

    wrong = Source([{"label": np.int32(label)} for label in (2, -1)])
    monkeypatch.setattr(matching, "open_source", lambda data: wrong)
    source = matching.open_matching(CONFIG.data, {"label": ()}, 3)
    with pytest.raises(ValueError, match="element 1 has label -1"):
        source[1]


def test_a_net_of_ten_million_million_classes_is_refused():
    config = dataclasses.replace(CONFIG, net=dataclasses.replace(CONFIG.net, num_classes=10**13 + 1))
    with pytest.raises(ValueError, match="the net knows 10000000000000 classes, expected at most 16777216"):
        FAMILY.build(config, {})


def test_pixels_are_rounded_and_clipped():
    values = np.array([-5.0, 5.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 0.0])
    np.testing.assert_array_equal(to_pixels(values), [0, 255, 0, 1, 128])
