"""CLIP as a model: its tokenizer, its embeddings, what it can tell, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import unclip_toy

from flaxgen import parallel, verbs
from flaxgen.data import DataError, open_source
from flaxgen.data.tokenize import Tokenizer
from flaxgen.family import directory
from flaxgen.zoo import clip

CONFIG = unclip_toy.CLIP_CONFIG


@pytest.fixture(scope="module")
def model(toy):
    return verbs.load(toy.runs["clip"])


@pytest.fixture(scope="module")
def pairs():
    source = open_source(unclip_toy.DATA)
    examples = [source[i] for i in range(8)]
    return np.stack([example["image"] for example in examples]), [example["text"] for example in examples]


def test_embeddings_have_the_length_of_a_gaussian_and_follow_their_input_alone(model, pairs):
    images, captions = pairs
    image, text = model.encode_image(images), model.encode_text(captions)
    for embedding in (image, text.embedding):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), unclip_toy.DIM**0.5, rtol=1e-5)
    np.testing.assert_allclose(model.encode_image(images[:5]), image[:5], atol=1e-5)
    np.testing.assert_allclose(model.encode_text(captions[:5]).hidden, text.hidden[:5], atol=1e-5)
    assert text.hidden.shape == (8, unclip_toy.CONTEXT, unclip_toy.WIDTH)


@pytest.mark.parametrize("name", [pytest.param("pmap", marks=pytest.mark.slow), "mesh"])
def test_many_devices_embed_alike(model, pairs, toy, name):
    images, captions = pairs
    many = verbs.load(toy.runs["clip"], parallel.make_plan(name))
    np.testing.assert_allclose(many.encode_image(images[:5]), model.encode_image(images[:5]), atol=1e-5)
    np.testing.assert_allclose(many.similarity(images, captions), model.similarity(images, captions), atol=1e-5)


def test_pictures_of_other_sizes_are_brought_to_the_tower(model, pairs):
    images, _ = pairs
    large = images.repeat(3, axis=1).repeat(3, axis=2)
    cosines = (model.encode_image(large) * model.encode_image(images)).sum(1) / unclip_toy.DIM
    assert cosines.min() > 0.98


def test_raw_embeddings_stay_as_they_are(model, pairs):
    raw = dataclasses.replace(model, config=dataclasses.replace(model.config, normalise=False))
    image, scaled = raw.encode_image(pairs[0]), model.encode_image(pairs[0])
    lengths = np.linalg.norm(image, axis=1, keepdims=True)
    assert np.ptp(lengths) > 1e-3
    np.testing.assert_allclose(image / lengths * unclip_toy.DIM**0.5, scaled, rtol=1e-4)


def test_what_is_nearest(model, monkeypatch):
    """The second picture has one better caption, the last one two that are one; the others find theirs."""
    cosines = np.array([[0.9, 0.1, 0.2, 0.2], [0.8, 0.7, 0.1, 0.1], [0.1, 0.2, 0.3, 0.1], [0.5, 0.1, 0.6, 0.4]])
    monkeypatch.setattr(clip.Model, "similarity", lambda *arguments: cosines)
    images, captions = np.zeros((4, 16, 16, 3), np.uint8), ["a", "b", "a", "d"]
    assert model.retrieval(images, captions, k=1) == 0.5
    assert model.retrieval(images, captions, k=2) == 1.0
    np.testing.assert_array_equal(model.classify(images, captions), [0, 0, 2, 2])


def test_the_tokenizer_is_trained_on_the_captions_and_kept(model, toy):
    kept = {name: (toy.runs["clip"] / name).read_bytes() for name in (clip.TOKENIZER, clip.WORDS)}
    assert clip.prepare(CONFIG, {}) == kept
    assert model.tokenizer == Tokenizer(kept[clip.TOKENIZER].decode())
    assert model.tokenizer.context == unclip_toy.CONTEXT


def test_a_tokenizer_of_ones_own(toy):
    chosen = clip.Vocabulary(path=str(toy.runs["clip"] / clip.TOKENIZER))
    trained = clip.prepare(CONFIG, {})[clip.TOKENIZER]
    assert clip.prepare(dataclasses.replace(CONFIG, vocabulary=chosen), {}) == {clip.TOKENIZER: trained}


def test_a_lesson_reads_with_the_tokenizer_of_what_comes_after(toy, tmp_path):
    """The first is trained on the captions of another split, those that go on take over what they begin with."""
    lesson = dataclasses.replace(CONFIG.data, split="lesson1")
    first = dataclasses.replace(CONFIG, data=lesson, vocabulary=dataclasses.replace(CONFIG.vocabulary, split="train"))
    assert clip.prepare(first, {}) == clip.prepare(CONFIG, {})
    assert clip.prepare(dataclasses.replace(CONFIG, data=lesson), {}) != clip.prepare(CONFIG, {})
    after = dataclasses.replace(CONFIG, data=lesson, start=str(toy.runs["clip"]))
    assert directory.prepare(clip.FAMILY, after, tmp_path) == clip.prepare(CONFIG, {})


def test_a_tokenizer_with_more_tokens_than_the_net(toy):
    text = dataclasses.replace(CONFIG.net.text, vocab_size=270)
    small = dataclasses.replace(CONFIG, net=dataclasses.replace(CONFIG.net, text=text))
    with pytest.raises(
        ValueError, match=r"the tokenizer has \d+ tokens and the net knows 270: set net\.text\.vocab_size"
    ):
        clip.prepare(small, {})


def test_data_without_captions(tmp_path):
    with pytest.raises(ValueError, match=r"data\.source=folder has no captions"):
        clip.prepare(dataclasses.replace(CONFIG, data=unclip_toy.without_captions(tmp_path)), {})


def test_data_without_false_captions(tmp_path, toy):
    data = unclip_toy.without_captions(tmp_path)
    rows = [f'{{"file_name": "{i}.png", "text": "a red circle"}}' for i in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    found = {clip.TOKENIZER: (toy.runs["clip"] / clip.TOKENIZER).read_bytes()}
    source = clip.FAMILY.build(dataclasses.replace(CONFIG, data=data), found).source
    with pytest.raises(DataError, match="false_captions=2 and element 1 has 0: set it to 0 or less"):
        source[1]


def test_what_a_config_refuses():
    for change, message in (
        ({"data": dataclasses.replace(CONFIG.data, flip=True)}, "captions may say left and right"),
        ({"encode_batch": 0}, "encode_batch=0: expected 1 or more"),
        ({"false_captions": -1}, "false_captions=-1: expected 0"),
        ({"false_weight": -0.5}, "false_weight=-0.5: expected 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **change)
    with pytest.raises(ValueError, match="size=259: expected more than 259"):
        clip.Vocabulary(size=259)


def test_a_clip_without_a_tokenizer_embeds_pictures_only(model, pairs):
    bare = dataclasses.replace(model, files={})
    assert bare.encode_image(pairs[0]).shape == (8, unclip_toy.DIM)
    with pytest.raises(ValueError, match=r"no tokenizer\.json beside its weights: it can embed pictures only"):
        bare.encode_text(["a red circle"])


def test_fingerprints_tell_weights_apart(model, toy, tmp_path):
    assert verbs.load(toy.runs["clip"]).fingerprint == model.fingerprint
    other = verbs.load(unclip_toy.with_another_clip(toy, tmp_path / "clip"))
    assert other.fingerprint != model.fingerprint


def test_the_logit_scale_comes_back_from_its_bound(monkeypatch):
    """Of a run that is beyond it, as those of older versions may be, with pairs that want it smaller."""
    config = dataclasses.replace(CONFIG, false_captions=0)

    def loss(params, batch, keys):
        own = dataclasses.replace(CONFIG.net, vision=None, text=None)
        scale = own.apply({"params": params}, params["logit_scale"], method=lambda net, raw: net.scale(raw))
        return scale, {"loss": scale}

    monkeypatch.setattr(clip, "make_loss", lambda config, axis_name: loss)
    monkeypatch.setattr(clip, "init_params", lambda config, key: {"logit_scale": jnp.float32(6)})
    init, make_step = clip.make_training(config, {})
    state, step, seen = init(jax.random.key(0)), jax.jit(make_step(None)), []
    for _ in range(3):
        state, _ = step(state, {"x": jnp.zeros(2)}, jax.random.key(1))
        seen.append(float(state.params["logit_scale"]))
    bound, rate = np.log(100), CONFIG.optimizer.learning_rate
    np.testing.assert_allclose(seen, [bound, bound - rate, bound - 2 * rate], rtol=1e-4)
