"""The decoder as a model: what it is told and what is hidden from it, its variants, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
import unclip_toy

from flaxgen import verbs
from flaxgen.family import directory
from flaxgen.family.denoising import Objective
from flaxgen.nets.clip import TextTower
from flaxgen.zoo import clip, decoder
from flaxgen.zoo.decoder import compiled_draw

KEY = jax.random.key(0)
CONFIG = unclip_toy.DECODER_CONFIG


@pytest.fixture(scope="module")
def cached(toy):
    return verbs.load(toy.runs["clip"]).cached(unclip_toy.DATA, "")


@pytest.fixture(scope="module")
def model(toy):
    return verbs.load(toy.runs["decoder"])


@pytest.fixture(scope="module")
def draw(model, cached):
    """`draw(settings, **changes)`: four pictures of what the first four examples say, but for the changes."""
    empty = {name: value[None] for name, value in cached.empty.items()}
    condition = {name: np.stack([cached[i][name] for i in range(4)]) for name in clip.FIELDS}
    condition["text_hidden"] = condition["text_hidden"].astype(np.float32)  # as verbs do

    def draw(settings=(), task="draw", **changes):
        sampling = dataclasses.replace(model.config.sampling, **dict(settings))
        return model.generate({**condition, **changes}, KEY, empty=empty, sampling=sampling, task=task)

    return draw


def test_what_is_hidden_says_nothing(draw):
    """Without the picture only its embedding stops to matter, without the caption all of its fields."""
    seen = draw()
    assert seen.shape == (4, 16, 16, 3)
    assert np.abs(seen).max() <= 1
    other = {"image_embedding": np.ones((4, unclip_toy.DIM), np.float32)}
    blind = {"has_image": np.zeros(4, bool)}
    assert np.abs(draw(**other) - seen).max() > 1e-3
    np.testing.assert_array_equal(draw(**blind, **other), draw(**blind))
    mute = {"has_text": np.zeros(4, bool)}
    said = {
        "text_embedding": np.ones((4, unclip_toy.DIM), np.float32),
        "text_mask": np.ones((4, unclip_toy.CONTEXT), bool),
    }
    said |= {"text_hidden": np.ones((4, unclip_toy.CONTEXT, unclip_toy.WIDTH), np.float32)}
    assert np.abs(draw(**said) - seen).max() > 1e-3
    np.testing.assert_array_equal(draw(**mute, **said), draw(**mute))
    assert np.abs(draw(**mute) - draw(**blind)).max() > 1e-3


def test_strengths_matter_and_compile_nothing(draw):
    seen = draw()
    before = compiled_draw.cache_info().misses
    changed = [draw({name: value}) for name, value in (("guidance", 6.0), ("eta", 0.5), ("rescale", 0.7))]
    assert compiled_draw.cache_info().misses == before
    assert all(np.abs(picture - seen).max() > 1e-3 for picture in changed)


def test_a_guidance_it_was_not_trained_for(model):
    for field in ("image_dropout", "text_dropout"):
        config = dataclasses.replace(model.config, **{field: 0.0})
        with pytest.raises(ValueError, match=r"guidance=3\.0 needs a decoder trained with image_dropout"):
            dataclasses.replace(model, config=config).generate({}, KEY, empty={})


def variant(objective=CONFIG.objective, **net):
    return dataclasses.replace(CONFIG, net=dataclasses.replace(CONFIG.net, **net), objective=objective)


VARIANTS = {
    "the empty caption as null": variant(null_text=False),
    "a text tower of its own": variant(
        text=TextTower(vocab_size=320, context=unclip_toy.CONTEXT, width=unclip_toy.WIDTH, depth=1, heads=2)
    ),
    "noise on embeddings": dataclasses.replace(CONFIG, embedding_noise=0.5),
    "learned variance": variant(
        unet=dataclasses.replace(CONFIG.net.unet, learned_variance=True), objective=Objective(loss="hybrid")
    ),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_variants_train_and_draw(config):
    """By their shapes alone."""
    init, make_step = decoder.FAMILY.training(config)
    spec = decoder.batch_spec(config)
    state, metrics = jax.eval_shape(make_step(None), jax.eval_shape(init, KEY), spec, KEY)
    assert metrics["loss"].shape == ()
    told = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in spec.items() if name != "image"}
    flag, number = jax.ShapeDtypeStruct((), bool), jax.ShapeDtypeStruct((), np.float32)
    empty = {
        name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in told.items() if name != "image_embedding"
    }
    strengths = dict.fromkeys(("guidance", "rescale", "eta"), number) | {"interval": (number, number)}
    given = {"params": state.params, "empty": empty, **strengths}
    inputs = {"key": jax.eval_shape(lambda: KEY), "has_image": flag, "has_text": flag, **told}
    picture = jax.eval_shape(decoder.make_draw(config, config.sampling.kind(), "draw"), given, inputs)
    assert picture.shape == (16, 16, 3)


def test_noise_on_embeddings_keeps_their_length_and_has_every_level():
    """E |z'|^2 = D whatever the level; the squared cosine to z is 1 / (1 + s^2), whose mean over s in [0, m] is
    atan(m) / m."""
    dim, largest, keys = 4096, 2.0, jax.random.split(jax.random.key(1), 2000)
    embedding = jnp.where(jnp.arange(dim) % 2 == 0, 1.0, -1.0)[None]
    noised = jax.vmap(lambda key: decoder.noise_embedding(embedding, key, largest)[0])(keys)
    square = jnp.square(noised).mean(1)
    np.testing.assert_allclose(square, 1, atol=0.15)
    cosine = (noised * embedding).mean(1) / jnp.sqrt(square)
    assert float(jnp.square(cosine).mean()) == pytest.approx(np.arctan(largest) / largest, abs=0.03)
    assert float(cosine.max()) > 0.999
    assert float(cosine.min()) < 0.46


def test_noise_on_embeddings_reaches_the_net():
    config = dataclasses.replace(CONFIG, image_dropout=0.0)
    params = random_weights.draw_like(
        verbs.family_of(config).abstract_params(config)
    )  # what is zero at first would hide it
    batch = {name: jnp.ones(x.shape, x.dtype) for name, x in decoder.batch_spec(config).items()}

    @jax.jit
    def losses(params):
        noised = [dataclasses.replace(config, embedding_noise=noise) for noise in (1e-6, 1.0)]
        keys = (jax.random.split(jax.random.key(3), config.batch_size) for _ in noised)
        return [decoder.make_loss(c, {})(params, batch, k)[0] for c, k in zip(noised, keys, strict=True)]

    little, much = losses(params)
    assert little != much


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_dropout": 1.0}, r"image_dropout=1\.0: expected a share"),
        ({"text_dropout": -0.1}, r"text_dropout=-0\.1: expected a share"),
        ({"embedding_noise": -0.1}, r"embedding_noise=-0\.1: expected 0"),
        ({"data": dataclasses.replace(CONFIG.data, flip=True)}, "set both false"),
        ({"data": dataclasses.replace(CONFIG.data, random_crop=True)}, "set both false"),
        ({"objective": Objective(loss="hybrid")}, "hybrid needs one"),
        ({"net": VARIANTS["learned variance"].net}, "mse cannot train it"),
    ],
)
def test_what_a_config_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_another_clip_is_refused_before_anything_is_written(toy, tmp_path):
    other = unclip_toy.with_another_clip(toy, tmp_path / "clip")
    config = dataclasses.replace(CONFIG, clip=str(other), steps=CONFIG.steps + 1)
    with pytest.raises(ValueError, match="this stage was trained with the CLIP"):
        directory.prepare(decoder.FAMILY, config, toy.runs["decoder"])
    with pytest.raises(ValueError, match="this stage was trained with the CLIP"):
        directory.prepare(decoder.FAMILY, dataclasses.replace(config, start=str(toy.runs["decoder"])), tmp_path / "run")


def test_a_clip_that_has_to_be_named():
    with pytest.raises(ValueError, match="clip is not set: train a clip first and name its run with --set clip=DIR"):
        decoder.prepare(CONFIG, {})


@pytest.mark.parametrize(("resize", "image_size"), [(32, 16), (64, 16)])
def test_a_decoder_that_would_see_less_than_its_clip_is_refused(resize, image_size):
    data = dataclasses.replace(CONFIG.data, resize=resize, image_size=image_size)
    config = dataclasses.replace(CONFIG, data=data)  # as a model of it is loaded
    with pytest.raises(ValueError, match=rf"data\.resize={resize} cuts the middle 16 pixels .*: set data\.resize=0"):
        decoder.FAMILY.build(config, {})
    for size in (0, image_size):
        decoder.check(dataclasses.replace(CONFIG, data=dataclasses.replace(data, resize=size)))
