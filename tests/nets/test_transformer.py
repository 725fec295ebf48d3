"""The transformer: its numbers beside float64 ones, who reads whom, and the cache."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from flaxgen.nets import layers
from flaxgen.nets.transformer import Transformer, causal_mask, empty_caches

LENGTH, WIDTH = 5, 8
TINY = Transformer(depth=2, heads=2)
MASK = causal_mask(LENGTH, LENGTH)
FORMULAS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
}
FORMULAS["gelu_new"] = FORMULAS["gelu_tanh"]
apply = jax.jit(lambda net, params, *inputs: net.apply({"params": params}, *inputs)[0], static_argnums=0)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (2, LENGTH, WIDTH))


@pytest.fixture(scope="module")
def params(shaken):
    return shaken(TINY, jnp.ones((1, LENGTH, WIDTH)), MASK)


def norm(x, p):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def by_hand(x, params, heads, activation):
    """The transformer of one sequence [T, W] without a batch, head by head and place by place."""
    for i in range(2):
        p = params[f"block_{i}"]
        y, read = norm(x, p["norm_1"]), np.zeros_like(x)
        query, key, value = (linear(y, p["attention"][name]) for name in ("query", "key", "value"))
        for part in np.split(np.arange(WIDTH), heads):
            for t in range(LENGTH):
                weights = np.exp(key[: t + 1, part] @ query[t, part] / math.sqrt(len(part)))
                read[t, part] = weights / weights.sum() @ value[: t + 1, part]
        x = x + linear(read, p["attention"]["out"])
        x = x + linear(activation(linear(norm(x, p["norm_2"]), p["mlp_1"])), p["mlp_2"])
    return x


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_the_numbers_are_those_of_the_formulas(activation, x, params):
    out = apply(TINY.clone(activation=activation), params, x, MASK)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for got, row in zip(out, np.asarray(x, np.float64), strict=True):
        np.testing.assert_allclose(got, by_hand(row, wide, 2, FORMULAS[activation]), atol=1e-5)


@pytest.mark.parametrize("place", [0, 2])
def test_a_causal_mask_reads_what_is_not_ahead(place):
    mask = causal_mask(3, 5, place)
    assert mask.shape == (1, 1, 3, 5)
    np.testing.assert_array_equal(mask[0, 0], [[s <= place + t for s in range(5)] for t in range(3)])


def test_no_place_depends_on_a_later_one(x, params):
    out = apply(TINY, params, x, MASK)
    for place in range(LENGTH):
        moved = np.abs(apply(TINY, params, x.at[:, place].multiply(-1.0), MASK) - out).max((0, 2))
        assert not moved[:place].any()
        assert (moved[place:] > 1e-3).all()


def test_what_is_masked_is_not_read(x, params):
    mask = MASK & jnp.array([True, False, True, True, True])[None, None, None]
    moved = np.abs(apply(TINY, params, x.at[:, 1].multiply(-1.0), mask) - apply(TINY, params, x, mask)).max((0, 2))
    assert moved[1] > 1e-3
    assert not moved[[0, 2, 3, 4]].any()


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4), (3,), (2, 4)])
def test_with_a_cache_the_numbers_are_the_same(cuts, x, params):
    @jax.jit
    def go_on(part, caches, place):
        mask = causal_mask(part.shape[1], LENGTH, place)
        return TINY.apply({"params": params}, part, mask, caches, place)

    caches, parts = empty_caches(2, 2, LENGTH, 2, WIDTH // 2), []
    for start, end in zip((0, *cuts), (*cuts, LENGTH), strict=True):
        out, caches = go_on(x[:, start:end], caches, start)
        parts.append(out)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), apply(TINY, params, x, MASK), atol=1e-5)


def test_remat_changes_no_number(x, params):
    def value_and_grad(net):
        return jax.jit(jax.value_and_grad(lambda p: jnp.square(net.apply({"params": p}, x, MASK)[0]).mean()))(
            {"block_0": params["block_0"]}
        )

    nets = (TINY.clone(depth=1), TINY.clone(depth=1, remat=True))
    for plain, again in zip(*(jax.tree.leaves(value_and_grad(net)) for net in nets), strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters(x, params, shaken):
    half = TINY.clone(dtype=jnp.bfloat16)
    out, exact = apply(half, params, x.astype(jnp.bfloat16), MASK), apply(TINY, params, x, MASK)
    assert out.dtype == jnp.bfloat16
    assert 0 < np.abs(out.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()
    made = jax.eval_shape(half.init, jax.random.key(0), x, MASK)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("field", "message"),
    [({"activation": "relu"}, "activation='relu' is not one of silu"), ({"heads": 3}, "heads=3 does not divide the 8")],
)
def test_what_is_wrong_is_named(field, message, x):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(TINY.clone(**field).init, jax.random.key(0), x)


def test_every_block_may_have_a_mask_of_its_own(x, params):
    """Two blocks of which the second reads its own place only, beside one block and then one block."""
    own = jnp.eye(LENGTH, dtype=bool)[None, None]
    one = TINY.clone(depth=1)
    first = apply(one, {"block_0": params["block_0"]}, x, MASK)
    expected = apply(one, {"block_0": params["block_1"]}, first, own)
    np.testing.assert_allclose(apply(TINY, params, x, (MASK, own)), expected, atol=1e-5)
    assert np.abs(apply(TINY, params, x, (own, MASK)) - expected).max() > 1e-3
    with pytest.raises(ValueError, match="1 masks for depth=2: expected one a block"):
        apply(TINY, params, x, (MASK,))
