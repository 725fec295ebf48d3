"""Upsamplers as models: sizes, what stays, and what they refuse."""

import dataclasses

import jax
import numpy as np
import pytest
import unclip_toy

from flaxgen import verbs
from flaxgen.zoo import upsampler

KEY = jax.random.key(0)
CONFIG = unclip_toy.UPSAMPLER_CONFIG


@pytest.fixture(scope="module")
def model(toy):
    return verbs.load(toy.runs["upsampler_1"])


@pytest.fixture(scope="module")
def small():
    return np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)


def test_a_picture_follows_its_small_one_and_its_number_alone(model, small):
    large = model.upsample(small, KEY)
    assert large.shape == (4, 32, 32, 3)
    assert np.abs(large).max() <= 1
    np.testing.assert_allclose(model.upsample(small[:3], KEY), large[:3], atol=1e-5)
    assert np.abs(model.upsample(small, jax.random.key(1)) - large).max() > 1e-3
    assert np.abs(model.upsample(-small, KEY) - large).max() > 1e-3


def test_what_is_to_stay_stays(model, small):
    image = np.random.default_rng(1).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    mask = np.zeros((4, 32, 32, 1), np.float32)
    mask[:, :, :20] = 1
    kept = model.upsample(small, KEY, keep={"image": image, "mask": mask})
    np.testing.assert_array_equal(kept[:, :, :20], image[:, :, :20])
    assert np.abs(kept[:, :, 20:] - image[:, :, 20:]).max() > 1e-2


def test_small_pictures_are_means_of_blocks():
    images = np.arange(2 * 5 * 4 * 1, dtype=np.float32).reshape(2, 5, 4, 1)
    expected = images[:, :4].reshape(2, 2, 2, 2, 2, 1).mean((2, 4))
    np.testing.assert_allclose(upsampler.shrink(images, 2), expected)


def test_a_size_that_the_net_cannot_draw(model):
    with pytest.raises(ValueError, match="a picture of 15x15 becomes 30x30: expected multiples of 4"):
        model.upsample(np.zeros((1, 15, 15, 3), np.float32), KEY)


@pytest.mark.parametrize(("degrade", "noise_level"), [("none", 0.3), ("bsr", 0.0)])
def test_every_degradation_trains(degrade, noise_level):
    """By its shapes alone; the degradations themselves are tested where they are."""
    net = dataclasses.replace(CONFIG.net, noise_level=noise_level > 0)
    config = dataclasses.replace(CONFIG, net=net, degrade=degrade, noise_level=noise_level)
    init, make_step = upsampler.FAMILY.training(config)
    _, metrics = jax.eval_shape(make_step(None), jax.eval_shape(init, KEY), upsampler.batch_spec(config), KEY)
    assert metrics["loss"].shape == ()


@pytest.mark.slow
def test_a_net_of_its_own_for_the_last_step(small):
    """Both nets matter, and noise on the small picture is drawn apart from the noise that is walked from."""
    net = dataclasses.replace(CONFIG.net, noise_level=True)
    config = dataclasses.replace(CONFIG, net=net, noise_level=0.3, draw_noise_level=0.1, last_step=True)
    params = jax.jit(lambda: upsampler.init_params(config, jax.random.key(0)))()
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    drawn = jax.jit(upsampler.make_draw(config, config.sampling, (32, 32, 3), False))

    def draw(params):
        return drawn(params, {"key": jax.random.key(1), "low_res": small[0]})

    plain = draw(params)
    for name in ("net", "last"):
        assert np.abs(draw({**params, name: jax.tree.map(lambda x: 1.1 * x, params[name])}) - plain).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 1}, "factor=1: expected 2 or more"),
        ({"net": unclip_toy.UNET}, "set it true"),
        ({"noise_level": 0.5}, "a net is told the level"),
        ({"noise_level": -0.5}, r"noise_level=-0\.5: expected a time"),
        ({"draw_noise_level": 0.5}, r"draw_noise_level=0\.5 is more than"),
        ({"tile": 60}, "tile=60, overlap=16: expected multiples of 8"),
        ({"overlap": 40}, "the overlap at most half a tile"),
        ({"sampling": dataclasses.replace(CONFIG.sampling, guidance=2.0)}, "there is nothing to guide by"),
    ],
)
def test_what_a_config_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_the_last_step_is_not_trained():
    with pytest.raises(ValueError, match="imported, and not trained here"):
        upsampler.FAMILY.training(dataclasses.replace(CONFIG, last_step=True))
