"""Textual inversion: only a word's vectors are learned, and their file draws what the run draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from saving import write_model
from test_latent import CAPTIONS, config_of, toy, whole  # noqa: F401

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.family.denoising import Objective
from flaxgen.interchange.textual_inversion import FILE, export_word
from flaxgen.train import checkpoint
from flaxgen.types import Held
from flaxgen.zoo import latent
from flaxgen.zoo.latent import family, words
from flaxgen.zoo.latent.adapt import read_word
from flaxgen.zoo.latent.text import read_captions

SAID = words.Word(text="<new>", vectors=5, beginning="red", captions=("a {} circle",))


def word_config(toy, **changes):  # noqa: F811
    config = config_of(toy, objective=Objective(), steps=2)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return words.WordConfig(**fields | {"base": str(toy / "net"), "word": SAID} | changes)


def beginning(toy):  # noqa: F811
    clip = verbs.load(toy / "clip")
    return clip, len(clip.tokenizer.pieces(SAID.beginning))


def test_a_run_begins_with_what_the_net_makes_of_the_word_it_begins_as(toy):  # noqa: F811
    clip, count = beginning(toy)
    config = word_config(toy, word=dataclasses.replace(SAID, vectors=count))
    params = words.init_params(config, jax.random.key(0))
    init = words.init_held(config, jax.random.key(0), params)
    rng, base = np.random.default_rng(0), verbs.load(toy / "net")
    batch = {
        name: jnp.asarray(rng.normal(size=spec.shape), spec.dtype) for name, spec in words.batch_spec(config).items()
    }
    assert batch.keys() == {"latent"}
    data = jax.random.key_data(jax.random.split(jax.random.key(1), 8))
    states = read_captions([clip], config.text, ["a red circle"]).tokens
    told = {**batch, "tokens": jnp.repeat(jnp.asarray(states), 8, 0)}
    step = jnp.asarray(rng.normal(size=(count, config.net.token_dim)), jnp.float32)

    @jax.jit
    def both(offset):
        keys = jax.random.wrap_key_data(data)
        own = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
        plain = latent.FAMILY.make_loss(config, {})(base.params, told, own)[0]
        again = jax.random.wrap_key_data(data)
        loss = words.make_loss(config, {})
        value, slope = jax.value_and_grad(lambda x: loss({"vectors": x * step}, batch, again, init)[0])(offset)
        return plain, value, slope

    plain, value, slope = both(jnp.float32(0))
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    ends = [float(both(jnp.float32(h))[1]) for h in (-1e-3, 1e-3)]
    assert float(slope) == pytest.approx((ends[1] - ends[0]) / 2e-3, rel=0.1)
    assert isinstance(init, Held)


def test_its_file_draws_what_the_run_draws(toy, whole, tmp_path):  # noqa: F811
    config = word_config(toy)
    vectors = np.random.default_rng(3).normal(size=(5, config.net.token_dim)).astype(np.float32)
    write_model(tmp_path / "model", config, {"vectors": vectors}, 3, family.prepare_beside(config, {}))
    model = flaxgen.load(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "word"), "--layout", "textual-inversion"]) == 0
    clip, _ = beginning(toy)
    rows = np.asarray(clip.params["text"]["tokens"]["embedding"])[list(clip.tokenizer.pieces("red"))]
    word, [found] = read_word(tmp_path / "word" / FILE)
    assert word == "<new>"
    np.testing.assert_array_equal(found, vectors + np.resize(rows, (5, rows.shape[1])))
    drawn = model.draw(["a <new> circle"], num=1).images
    given = {"num": 1, "word": (str(tmp_path / "word" / FILE),)}
    np.testing.assert_array_equal(drawn, whole.draw(["a <new> circle"], **given).images)
    assert (drawn != model.draw(["a red circle"], num=1).images).any()


def test_words_of_two_text_encoders_are_written_as_those_of_xl(toy, tmp_path):  # noqa: F811
    net = config_of().net.clone(token_dim=32)
    config = word_config(toy, net=net, clip_2=str(toy / "clip"))
    vectors = np.random.default_rng(3).normal(size=(5, 32)).astype(np.float32)
    export_word(words.WORD.trained(config, {"vectors": vectors}), tmp_path / "word")
    tensors = safetensors.numpy.load_file(tmp_path / "word" / "<new>.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == {"clip_l": (5, 16), "clip_g": (5, 16)}
    np.testing.assert_allclose(tensors["clip_g"] - tensors["clip_l"], vectors[:, 16:] - vectors[:, :16], atol=1e-5)


@pytest.mark.slow
def test_only_vectors_move(toy, tmp_path):  # noqa: F811
    config, plan = (
        word_config(toy, word=dataclasses.replace(SAID, captions=words.THINGS[:2])),
        parallel.make_plan("jit"),
    )
    longer = dataclasses.replace(config, steps=3)
    verbs.train(config, tmp_path / "run", plan)
    for place in ("run", "straight"):
        verbs.train(longer, tmp_path / place, plan)
    found = [checkpoint.read(tmp_path / p / "checkpoints", ("params", "held"))[1] for p in ("run", "straight")]
    jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
    assert found[0]["params"].keys() == {"vectors"}
    assert found[0]["params"]["vectors"].all()
    jax.tree.map(np.testing.assert_array_equal, found[0]["held"]["frozen"]["net"], dict(verbs.load(toy / "net").params))
    assert flaxgen.load(tmp_path / "run").draw(CAPTIONS, num=1).images.any()


@pytest.mark.slow
def test_a_step_on_a_mesh_is_a_step_on_one_device(toy):  # noqa: F811
    config, found = word_config(toy, word=dataclasses.replace(SAID, captions=words.THINGS[:2])), []
    rng = np.random.default_rng(0)
    batch = {name: rng.normal(size=spec.shape).astype(spec.dtype) for name, spec in words.batch_spec(config).items()}
    for plan in (parallel.jit_plan(), parallel.mesh_plan(data=4, fsdp=2), parallel.pmap_plan()):
        init, make_step = words.WORD.training(config, {})
        state = plan.place_state(init(jax.random.key(0)))
        state, _ = plan.compile_step(make_step)(state, plan.place_batch(batch), jax.random.key(1))
        found.append(jax.device_get(plan.single(state)).params["vectors"])
    for vectors in found[1:]:
        np.testing.assert_allclose(vectors, found[0], atol=2e-5)


def test_what_does_not_fit_is_said(toy):  # noqa: F811
    with pytest.raises(ValueError, match="base is not set"):
        family.prepare_beside(word_config(toy, base=""), {})
    with pytest.raises(ValueError, match=r"'red circle' is \d+ tokens and word.vectors=1: expected at most as many"):
        words.beginning_of(verbs.load(toy / "clip"), words.Word(beginning="red circle"))
    with pytest.raises(ValueError, match="longer than the 16 tokens"):
        words.make_read(word_config(toy, word=dataclasses.replace(SAID, captions=("a photo of a very large {} " * 4,))))
    for changes, said in (
        ({"text": "two words"}, "expected one word"),
        ({"captions": ("a photo",)}, "expected a {} where"),
        ({"captions": ()}, "is empty"),
        ({"vectors": 0}, "expected 1 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            words.Word(**changes)
    with pytest.raises(ValueError, match="token_dim=0"):
        word_config(toy, net=config_of().net.clone(attention=(), token_dim=0), sampling=latent.Config.sampling)
