"""What the attention of a level computes, beside what test_resnet says of the plain block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from flaxgen.nets.attention import AttentionBlock, SpatialTransformer, TransformerBlock, TransformerBlocks, make_block

CONV = TransformerBlocks(SpatialTransformer(heads=2), norm_groups=4)
LINEAR = TransformerBlocks(SpatialTransformer(head_channels=4, linear=True), norm_groups=4)
MASK = jnp.array([[True, False, True], [True, True, True]])


def draw(*shape):
    return jax.random.normal(jax.random.key(7), shape)


X, TOKENS = draw(2, 2, 3, 8), draw(2, 3, 5)


@pytest.fixture(scope="module")
def params(shaken):
    return shaken(CONV, X, TOKENS)


def norm(p, x):
    wide = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return wide * p["scale"] + p["bias"]


def attend(p, x, read):
    query, key, value = x @ p["query"]["kernel"], read @ p["key"]["kernel"], read @ p["value"]["kernel"]
    weights = np.exp(query @ key.T / np.sqrt(query.shape[-1]))
    return weights / weights.sum(-1, keepdims=True) @ value @ p["out"]["kernel"] + p["out"]["bias"]


@pytest.mark.parametrize("only_cross", [False, True])
def test_a_block_is_its_formula(only_cross, shaken, run):
    """Self-attention, cross-attention and GEGLU, value first and gate second, in float64."""
    x, tokens = draw(1, 6, 8), TOKENS[:1]
    block = TransformerBlock(1, only_cross)
    params = shaken(block, x, tokens)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h, read = np.asarray(x[0], np.float64), np.asarray(tokens[0], np.float64)
    normed = norm(p["norm_1"], h)
    h = h + attend(p["self_attention"], normed, read if only_cross else normed)
    h = h + attend(p["cross_attention"], norm(p["norm_2"], h), read)
    value, gate = np.split(norm(p["norm_3"], h) @ p["mlp_1"]["kernel"] + p["mlp_1"]["bias"], 2, axis=-1)
    gated = value * gate * (1 + erf(gate / np.sqrt(2))) / 2
    expected = h + gated @ p["mlp_2"]["kernel"] + p["mlp_2"]["bias"]
    np.testing.assert_allclose(run(block, params, x, tokens)[0], expected, atol=1e-5)


def test_projections_are_the_same_numbers_in_another_shape(params, run):
    """1 x 1 convolutions or linear layers; heads by number or by width."""
    flat = {
        name: value | {"kernel": value["kernel"][0, 0]} if name.startswith("proj") else value
        for name, value in params.items()
    }
    np.testing.assert_allclose(run(LINEAR, flat, X, TOKENS), run(CONV, params, X, TOKENS), atol=1e-5)


def test_hidden_tokens_are_not_read(params, run):
    changed = jnp.where(MASK[..., None], TOKENS, 99.0)
    np.testing.assert_array_equal(run(CONV, params, X, TOKENS, MASK), run(CONV, params, X, changed, MASK))
    assert np.abs(run(CONV, params, X, TOKENS, MASK) - run(CONV, params, X, TOKENS))[0].max() > 1e-3


def test_it_starts_as_the_identity():
    last = jax.jit(lambda: CONV.init(jax.random.key(0), X, TOKENS)["params"]["proj_out"])()
    assert not any(leaf.any() for leaf in jax.tree.leaves(last))


def test_every_block_is_there():
    value = SpatialTransformer(depth=3, norm_groups=2)
    shapes = jax.eval_shape(
        lambda: TransformerBlocks(value, norm_groups=2).init(jax.random.key(0), X, TOKENS)["params"]
    )
    assert set(shapes) == {"norm", "proj_in", "block_0", "block_1", "block_2", "proj_out"}


def test_pixels_that_read_tokens_alone_know_no_others(shaken, run):
    """One pixel changes and no other does."""
    block = AttentionBlock(heads=2, norm_groups=0, only_tokens=True, token_norm_groups=5)
    params = shaken(block, X, TOKENS)
    assert set(params) == {"query", "token_key", "token_value", "token_norm", "out"}
    out, changed = run(block, params, X, TOKENS, MASK), run(block, params, X.at[:, 0, 0].add(1.0), TOKENS, MASK)
    differs = np.abs(out - changed).max((0, 3)) > 1e-6
    assert differs.tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize(("own", "groups", "eps"), [((None, None), 4, 1e-3), ((2, 1e-6), 2, 1e-6)])
def test_a_norm_is_the_nets_unless_it_has_its_own(own, groups, eps):
    block = make_block(SpatialTransformer(norm_groups=own[0], norm_eps=own[1]), 4, 1e-3, jnp.float32, False, "name")
    assert (block.norm_groups, block.norm_eps) == (groups, eps)
