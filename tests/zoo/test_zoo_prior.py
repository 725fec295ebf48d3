"""Priors as models: whitening, codes, the better of several, and what changes without compiling again."""

import dataclasses

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import unclip_toy

from flaxgen import parallel, verbs
from flaxgen.family import companions, directory
from flaxgen.family.sampling import Sampling
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.tokens import quantise
from flaxgen.zoo import clip, prior
from flaxgen.zoo.prior import config
from flaxgen.zoo.prior.config import STATISTICS, TEXT, empty_text, read_statistics
from flaxgen.zoo.prior.model import compiled_draw, init_params, make_loss, make_quantiser

KEY = jax.random.key(0)
KINDS = ("prior", "ar_prior")


@pytest.fixture(scope="module")
def cached(toy):
    return verbs.load(toy.runs["clip"]).cached(unclip_toy.DATA, "")


@pytest.fixture(scope="module")
def text(cached):
    return {name: np.stack([cached[i][name] for i in range(8)]) for name in clip.TEXT}


@pytest.fixture(scope="module")
def models(toy):
    return {kind: verbs.load(toy.runs[kind]) for kind in KINDS}


def test_statistics_are_those_of_the_data(models, cached):
    images = np.stack([cached[i]["image_embedding"] for i in range(len(cached))]).astype(np.float64)
    statistics = read_statistics(models["prior"].files)
    np.testing.assert_allclose(statistics["mean"], images.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics["std"], images.std(0), rtol=1e-4)
    fitted = make_quantiser(read_statistics(models["ar_prior"].files))
    values = (images - np.asarray(fitted.mean)[None]) @ np.asarray(fitted.components)
    np.testing.assert_allclose(np.cov(values.T) - np.diag(np.diag(np.cov(values.T))), 0, atol=1e-4)
    for field in clip.TEXT[:3]:
        np.testing.assert_array_equal(statistics[f"empty_{field}"], cached.empty[field])


def test_statistics_of_classes_that_lie_one_after_the_other(tmp_path, monkeypatch):
    """Fitted to a share of the examples, codes are as good for classes at the end as for those in front."""
    monkeypatch.setattr(companions, "SHARD", 100)
    monkeypatch.setattr(config, "FITTED", 100)
    rng, net = np.random.default_rng(0), ARPrior(embedding_dim=8, dims=8, buckets=64, width=16, heads=2)
    images = (3 * np.repeat(rng.normal(size=(5, 8)), 80, 0) + rng.normal(size=(400, 8))).astype(np.float32)
    for i, part in enumerate(np.split(images, 4)):
        fields = {"image_embedding": part, "text_embedding": part}
        companions._write(tmp_path / companions._name(i), tuple(fields), fields)
    np.savez(tmp_path / companions.EMPTY)
    source = companions.Cached(tmp_path, ("image_embedding", "text_embedding"), 400)
    fitted = config._fit(dataclasses.replace(unclip_toy.AR_PRIOR_CONFIG, net=net), source)
    quantiser = make_quantiser(fitted)
    back = quantise.decode(quantiser, quantise.encode(quantiser, jnp.asarray(images), 64), 64)
    errors = np.linalg.norm(back - images, axis=1) / np.linalg.norm(images, axis=1)
    assert errors.reshape(5, 80).mean(1).max() < 0.1
    whitened = config._fit(dataclasses.replace(unclip_toy.PRIOR_CONFIG, net=DiffusionPrior(embedding_dim=8)), source)
    assert np.abs((whitened["mean"] - images.mean(0)) / images.std(0)).max() < 0.3


def test_weights_that_a_run_begins_with_bring_their_statistics(models, toy, tmp_path):
    config = dataclasses.replace(unclip_toy.config_of("prior", toy.runs), start=str(toy.runs["prior"]))
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, seed=5))
    run, alone = tmp_path / "run", dataclasses.replace(other, start="")
    assert directory.prepare(prior.FAMILY, other, run) == models["prior"].files
    assert directory.prepare(prior.FAMILY, alone, run) != models["prior"].files


def test_a_net_that_says_nothing(models, cached, text):
    """Of whitened embeddings 0 is the mean: its error is 1 over the data, and what is drawn with it is the mean."""
    model, statistics = models["prior"], read_statistics(models["prior"].files)
    params = jax.jit(lambda: init_params(model.config, KEY))()
    fields = ("image_embedding", *TEXT)
    batch = {name: np.stack([cached[i][name] for i in range(len(cached))]) for name in fields}
    loss, _ = jax.jit(make_loss(model.config, model.files))(params, batch, parallel.example_keys(KEY, len(cached)))
    assert float(loss) == pytest.approx(1, rel=1e-3)
    drawn = dataclasses.replace(model, params=params).draw_embeddings(text, KEY)
    np.testing.assert_allclose(drawn, np.tile(statistics["mean"], (8, 1)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_better_of_candidates_is_taken(models, text, kind):
    """The first of two candidates is the only one of one: where it does not fit as well as what is drawn, the other one
    does, and where it fits best it is what is drawn."""
    assert models[kind].config.candidates == 2
    key = jax.random.key(3)
    one, two = models[kind].draw_embeddings(text, key, candidates=1), models[kind].draw_embeddings(text, key)
    fits = [(x / np.linalg.norm(x, axis=1, keepdims=True) * text["text_embedding"]).sum(1) for x in (one, two)]
    other = np.abs(one - two).max(axis=1) > 1e-4
    assert 0 < other.sum() < len(other)
    np.testing.assert_array_less(fits[0][other], fits[1][other])


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_follows_its_caption_and_number_alone(models, text, kind):
    some = {name: value[:5] for name, value in text.items()}
    all_drawn = models[kind].draw_embeddings(text, KEY)
    np.testing.assert_allclose(models[kind].draw_embeddings(some, KEY), all_drawn[:5], atol=1e-5)
    assert np.abs(models[kind].draw_embeddings(text, jax.random.key(1)) - all_drawn).max() > 1e-2


def test_drawn_codes_are_centres_of_buckets(models, text):
    model = models["ar_prior"]
    fitted = make_quantiser(read_statistics(model.files))
    drawn = model.draw_embeddings(text, KEY)
    buckets = model.config.net.buckets
    again = quantise.decode(fitted, quantise.encode(fitted, jnp.asarray(drawn), buckets), buckets)
    np.testing.assert_allclose(again, drawn, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_matters_and_compiles_nothing(models, text, kind):
    model = models[kind]
    own = model.config.sampling
    before, misses = model.draw_embeddings(text, KEY), compiled_draw.cache_info().misses
    model.draw_embeddings(text, KEY)
    changes = ({"guidance": 1.5}, {"guidance": 7.0}, {"eta": 0.3})
    with compilations.counted() as seen:
        _, strong, _ = (
            model.draw_embeddings(text, KEY, sampling=dataclasses.replace(own, **change)) for change in changes
        )
    assert np.abs(strong - before).max() > 1e-3
    assert compiled_draw.cache_info().misses == misses
    assert seen == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plan", ["pmap", "mesh"])
def test_many_devices_draw_alike(models, text, kind, plan):
    some = {name: value[:5] for name, value in text.items()}
    many = dataclasses.replace(models[kind], plan=parallel.make_plan(plan))
    np.testing.assert_allclose(many.draw_embeddings(some, KEY), models[kind].draw_embeddings(some, KEY), atol=1e-4)


def test_what_draw_refuses(models, text):
    model = models["prior"]
    wide = {**text, "text_hidden": np.zeros((8, unclip_toy.CONTEXT, 5), np.float16)}
    with pytest.raises(ValueError, match="captions 5 wide: expected 16"):
        model.draw_embeddings(wide, KEY)
    blind = dataclasses.replace(model.config.objective, condition_dropout=0.0)
    never_blind = dataclasses.replace(model, config=dataclasses.replace(model.config, objective=blind))
    with pytest.raises(ValueError, match=r"guidance=2\.0 needs a prior trained with objective\.condition_dropout"):
        never_blind.draw_embeddings(text, KEY)


@pytest.mark.parametrize(
    ("found", "message"),
    [({}, r"no statistics\.safetensors beside"), ({STATISTICS: b"{}"}, r"statistics\.safetensors is damaged")],
)
def test_statistics_that_are_none(found, message):
    with pytest.raises(ValueError, match=message):
        read_statistics(found)


def test_an_empty_caption_that_is_not_known():
    found = {STATISTICS: safetensors.numpy.save({"mean": np.zeros(8, np.float32), "std": np.ones(8, np.float32)})}
    with pytest.raises(ValueError, match="knows no empty caption"):
        empty_text(read_statistics(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, "candidates=0: expected 1 or more"),
        ({"temperature": -1.0}, r"temperature=-1\.0: expected 0 or more"),
        ({"top_p": 0.0}, r"top_p=0\.0: expected a share"),
        ({"process": dataclasses.replace(unclip_toy.PRIOR_CONFIG.process, timesteps=0)}, "trained in table time"),
    ],
)
def test_what_a_config_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(unclip_toy.PRIOR_CONFIG, **change)


@pytest.mark.parametrize("guidance", [float("nan"), float("inf")])
def test_a_guidance_that_is_no_number(guidance):
    with pytest.raises(ValueError, match="expected a number, 1 for none"):
        Sampling(guidance=guidance)
