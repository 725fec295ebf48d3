"""Drawing with and without a cache, guided or not, around codes that are known: against nets that are known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import misfit

from flaxgen.nets.code_transformer import CodeTransformer
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.tokens.guidance import guide, guided_predict, guided_start, guided_step
from flaxgen.tokens.logistic import log_prob, make_pixel_choice, read_mixture
from flaxgen.tokens.sampling import Known, known_rows, make_choice, sample_codes, sample_without_cache

NET = CodeTransformer(2, 2, codes=2, num_classes=3, features=8, depth=1, heads=2)
GATED = PixelCNN(2, 2, codes=2, num_classes=3, channels=8, depth=2, first_size=3, out_channels=16)
PICTURES = jnp.asarray(list(itertools.product((0, 1), repeat=4)), jnp.int32)


def make_params(net, seed=0):
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 2, 2), int), jnp.zeros(1, int)))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)


PARAMS, GATED_PARAMS = make_params(NET), make_params(GATED)


def keys(num):
    return jax.random.split(jax.random.key(7), num)


def labels(num, label):
    return jnp.full(num, label, jnp.int32)


def predict_with(net, params, label):
    """A label an example, or for guided drawing twice as many."""

    def predict(codes):
        return net.apply({"params": params}, codes.reshape(-1, 2, 2), label).reshape(-1, 4, 2)

    return predict


@functools.partial(jax.jit, static_argnums=0)
def logits_of(net, params, codes, label):
    return predict_with(net, params, labels(len(codes), label))(codes)


def probabilities(net, params, label):
    """Of the 16 pictures under each of the net's conditionals."""
    return chosen(logits_of(net, params, PICTURES, label))


def chosen(logits):
    """Products over places of the probabilities that logits give to the pictures' codes."""
    weights = np.exp(np.asarray(logits, np.float64))
    return np.take_along_axis(weights / weights.sum(-1, keepdims=True), np.asarray(PICTURES)[..., None], -1).prod(
        (1, 2)
    )


def count(drawn):
    """How often each of the 16 pictures was drawn."""
    return np.bincount(np.asarray(drawn) @ [8, 4, 2, 1], minlength=16)


def cached(keys, label, choose=None, known=None):
    start = NET.apply({"params": PARAMS}, label, method="start")

    def step(code, place, caches):
        return NET.apply({"params": PARAMS}, code, place, caches, method="step")

    return sample_codes(start, step, 4, keys, choose or make_choice(), known)


@jax.jit
def both_ways(keys, label, temperature, known):
    choose = make_choice(temperature)
    return cached(keys, label, choose, known), sample_without_cache(
        predict_with(NET, PARAMS, label), (4,), keys, choose, known
    )


NOTHING = Known(jnp.zeros((4000, 4), jnp.int32), jnp.zeros((4000, 4), bool))


def test_pictures_are_as_frequent_as_the_net_finds_them_probable():
    expected = probabilities(NET, PARAMS, 1)
    assert expected.max() > 3 * expected.min()
    assert misfit(count(both_ways(keys(4000), labels(4000, 1), 1.0, NOTHING)[0]), expected) < 1
    assert misfit(count(both_ways(keys(4000), labels(4000, 1), 1.0, NOTHING)[0]), probabilities(NET, PARAMS, 2)) > 1


def test_without_a_cache_frequencies_are_the_nets_too():
    draw = jax.jit(
        lambda keys: sample_without_cache(predict_with(GATED, GATED_PARAMS, labels(4000, 1)), (4,), keys, make_choice())
    )
    expected = probabilities(GATED, GATED_PARAMS, 1)
    assert expected.max() > 3 * expected.min()
    assert misfit(count(draw(keys(4000))), expected) < 1


def test_with_and_without_a_cache_codes_are_the_same():
    with_cache, without = both_ways(keys(4000), labels(4000, 0), 1.0, NOTHING)
    # logits are equal but for rounding, which may turn one draw in many thousands
    assert (with_cache != without).any(1).mean() < 1e-3


def test_cold_every_code_is_the_likeliest():
    for drawn in both_ways(keys(4000), labels(4000, 2), 0.0, NOTHING):
        likeliest = logits_of(NET, PARAMS, drawn[:16], 2).argmax(-1)[:1]
        np.testing.assert_array_equal(drawn, jnp.broadcast_to(likeliest, drawn.shape))


def test_a_joint_distribution_is_drawn_by_its_own_conditionals():
    """The oracle's logits at a place are the log-probabilities of the codes up to it."""
    joint = np.random.default_rng(0).dirichlet(np.full(16, 0.5))
    table = joint.reshape(1, 2, 2, 2, 2)
    beginnings = [jnp.asarray(np.log(table.sum(tuple(range(k + 2, 5)))), jnp.float32) for k in range(4)]

    def predict(codes):
        codes = jnp.pad(codes, ((0, 0), (1, 0)))
        return jnp.stack([logits[tuple(codes[:, : k + 1].T)] for k, logits in enumerate(beginnings)], axis=1)

    drawn = jax.jit(lambda keys: sample_without_cache(predict, (4,), keys, make_choice()))(keys(8000))
    assert misfit(count(drawn), joint) < 1


def test_known_codes_stay_and_the_rest_follows_them():
    """The lower row given an upper row: the net's own conditional, by enumeration."""
    known = known_rows(jnp.broadcast_to(jnp.array([[1, 0], [1, 1]])[None], (4000, 2, 2)), 1)
    joint = probabilities(NET, PARAMS, 1) * np.asarray((PICTURES[:, 0] == 1) & (PICTURES[:, 1] == 0))
    for drawn in both_ways(keys(4000), labels(4000, 1), 1.0, known):
        assert (drawn[:, :2] == jnp.array([[1, 0]])).all()
        assert misfit(count(drawn), joint / joint.sum()) < 1


def test_any_place_may_be_known():
    known = Known(NOTHING.codes + 1, NOTHING.mask.at[:, 2].set(True))
    for drawn in both_ways(keys(4000), labels(4000, 1), 1.0, known):
        assert (drawn[:, 2] == 1).all()
        assert (drawn[:, [0, 1, 3]].min(0) == 0).all()


def test_an_example_does_not_depend_on_its_batch():
    drawn, label = both_ways(keys(4000), jnp.arange(4000) % 3, 1.0, NOTHING), jnp.arange(4000) % 3
    turned = both_ways(keys(4000)[::-1], label[::-1], 1.0, NOTHING)
    for one, other in zip(drawn, turned, strict=True):
        assert (one != other[::-1]).any(1).mean() < 1e-3


def test_mapped_over_single_keys_the_codes_are_the_same():
    """As families draw: one key and one label an example, without a batch."""
    label = jnp.arange(4000) % 3
    known = Known(NOTHING.codes[:1], NOTHING.mask[:1])
    mapped = jax.jit(jax.vmap(lambda key, label: both_ways(key[None], label[None], 1.0, known)))(keys(4000), label)
    for one, other in zip(mapped, both_ways(keys(4000), label, 1.0, NOTHING), strict=True):
        assert (one[:, 0] != other).any(1).mean() < 1e-3


@jax.jit
def guided_both_ways(keys, scale):
    both = jnp.concatenate((labels(len(keys), 1), labels(len(keys), 2)))
    start = guided_start(NET.apply({"params": PARAMS}, both, method="start"), scale)
    step = guided_step(lambda *inputs: NET.apply({"params": PARAMS}, *inputs, method="step"), scale)
    predict = guided_predict(predict_with(NET, PARAMS, both), scale)
    choose = make_choice()
    return sample_codes(start, step, 4, keys, choose), sample_without_cache(predict, (4,), keys, choose)


@pytest.mark.parametrize(("scale", "label"), [(1.0, 1), (0.0, 2)])
def test_guidance_1_is_the_condition_and_0_the_null(scale, label):
    plain = both_ways(keys(4000), labels(4000, label), 1.0, NOTHING)
    for drawn, expected in zip(guided_both_ways(keys(4000), scale), plain, strict=True):
        assert (drawn != expected).any(1).mean() < 1e-3


def test_guided_logits_are_those_of_the_formula():
    """Codes drawn with scale 3 have p(code) proportional to p(code | label)^3 p(code | null)^-2, place by place."""
    one, two = (np.asarray(logits_of(NET, PARAMS, PICTURES, label)) for label in (1, 2))
    one, two = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)) for logits in (one, two))
    for drawn in guided_both_ways(keys(4000), 3.0):
        assert misfit(count(drawn), chosen(3 * one - 2 * two)) < 1
    np.testing.assert_array_equal(guide(jnp.concatenate((one, two)), 1.0), one)


def test_pixels_of_a_mixture_are_drawn_whole():
    """Two pixels of two channels and two levels, the second's parameters from the first."""
    rng = np.random.default_rng(0)
    first, slopes = (jnp.asarray(rng.normal(0, 1, (2, 12)), jnp.float32) for _ in range(2))

    def predict(codes):
        return jnp.stack((jnp.broadcast_to(first[:1], (len(codes), 12)), first[1:] + codes[:, 0] @ slopes), 1)

    choose = make_pixel_choice(2, levels=2)
    drawn = jax.jit(lambda keys: sample_without_cache(predict, (2, 2), keys, choose))(keys(4000))
    pixels = PICTURES.reshape(16, 2, 2)
    expected = jax.jit(lambda pixels: log_prob(read_mixture(predict(pixels), 2), pixels, 2).sum(1))(pixels)
    assert misfit(count(drawn.reshape(-1, 4)), np.exp(np.asarray(expected, np.float64))) < 1
    known = known_rows(jnp.ones((5, 2, 1, 2), jnp.int32), 1)
    kept = jax.jit(lambda keys: sample_without_cache(predict, (2, 2), keys, choose, known))(keys(5))
    assert (kept[:, 0] == 1).all()


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="0 codes were asked for"):
        sample_without_cache(lambda codes: codes, (0,), keys(1), make_choice())
    with pytest.raises(ValueError, match="3 rows of a grid of 2 are to be kept: expected 0 to 2"):
        known_rows(jnp.zeros((1, 2, 2), int), 3)
