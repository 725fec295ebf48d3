"""Resampling, patches and blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import resnet
from flaxgen.nets.attention import AttentionBlock, SelfAttention, attention_at


def picture(*shape):
    return jax.random.normal(jax.random.key(7), shape)


def test_nearest_and_average_pool():
    x, y = np.asarray(picture(2, 3, 5, 4)), np.asarray(picture(2, 4, 6, 3))
    large, again, small = jax.jit(
        lambda x, y: (resnet.nearest(x), resnet.average_pool(resnet.nearest(x)), resnet.average_pool(y))
    )(x, y)
    np.testing.assert_array_equal(large, np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    np.testing.assert_allclose(again, x, rtol=1e-6)
    expected = (y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(small, expected, atol=1e-6)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches(patch):
    x = np.arange(2 * 2 * 3 * 4 * patch**2, dtype=np.float32).reshape(2, 2 * patch, 3 * patch, 4)
    patches, back = jax.jit(
        lambda x: (resnet.space_to_depth(x, patch), resnet.depth_to_space(resnet.space_to_depth(x, patch), patch))
    )(x)
    for i, j in ((0, 0), (1, 2)):
        block = x[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
        np.testing.assert_array_equal(np.asarray(patches)[:, i, j], block.reshape(2, -1))
    np.testing.assert_array_equal(back, x)


def test_blocks_start_as_the_identity():
    """Their last layer is zero [Ho20, app. B]."""
    x, emb, key = picture(1, 4, 4, 8), picture(1, 6), jax.random.key(0)

    @jax.jit
    def last_layers():
        resblock = resnet.ResBlock(8, norm_groups=4).init(key, x, emb)["params"]["conv_2"]
        return resblock, AttentionBlock(norm_groups=4).init(key, x)["params"]["out"]

    leaves = jax.tree.leaves(last_layers())
    assert len(leaves) == 4
    assert not any(leaf.any() for leaf in leaves)


def test_attention_knows_no_places(shaken, run):
    """Shuffled pixels come out shuffled."""
    x, order = picture(2, 2, 3, 8), np.array([3, 0, 5, 1, 4, 2])
    block = AttentionBlock(heads=2, norm_groups=4)
    params = shaken(block, x)
    shuffled = x.reshape(2, 6, 8)[:, order].reshape(x.shape)
    expected = run(block, params, x).reshape(2, 6, 8)[:, order].reshape(x.shape)
    np.testing.assert_allclose(run(block, params, shuffled), expected, atol=1e-5)


def test_tokens_share_one_softmax_with_the_pixels(shaken, run):
    """By hand: keys and values of tokens, then of pixels, under one softmax."""
    x, tokens = picture(1, 2, 2, 8), picture(1, 3, 5)
    block = AttentionBlock(norm_groups=0)
    params = shaken(block, x, tokens)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def linear(name, inputs):
        return np.asarray(inputs, np.float64) @ p[name]["kernel"] + p[name]["bias"]

    pixels = np.asarray(x).reshape(4, 8)
    key = np.concatenate((linear("token_key", tokens[0]), linear("key", pixels)))
    value = np.concatenate((linear("token_value", tokens[0]), linear("value", pixels)))
    weights = np.exp(linear("query", pixels) @ key.T / np.sqrt(8))
    read = weights / weights.sum(-1, keepdims=True) @ value
    expected = np.asarray(x) + linear("out", read).reshape(x.shape)
    np.testing.assert_allclose(run(block, params, x, tokens), expected, atol=1e-5)


def test_hidden_tokens_are_not_read(shaken, run):
    x, tokens = picture(2, 2, 2, 8), picture(2, 3, 5)
    mask = jnp.array([[True, False, True], [False, False, False]])
    block = AttentionBlock(heads=2, norm_groups=4)
    params = shaken(block, x, tokens)
    out = run(block, params, x, tokens, mask)
    changed = run(block, params, x, jnp.where(mask[..., None], tokens, 99.0), mask)
    np.testing.assert_array_equal(out, changed)
    alone = run(block, params, x)
    np.testing.assert_allclose(out[1], alone[1], atol=1e-5)
    assert np.abs(out[0] - alone[0]).max() > 1e-3


@pytest.mark.parametrize("padding", [(0, 1), (1, 1)])
def test_downsample_pads_where_it_says(padding, run):
    """A kernel that is 1 at its centre reads every second pixel, from 0 after (1, 1) and from 1 after (0, 1)."""
    x = picture(1, 4, 4, 1)
    net = resnet.Downsample(padding)
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    out = run(net, {"conv": {"kernel": centre, "bias": jnp.zeros(1)}}, x)
    first = 1 - padding[0]
    np.testing.assert_allclose(out, x[:, first::2, first::2], atol=1e-6)


def test_levels_and_sizes_are_checked():
    value = SelfAttention()
    attention = attention_at(value, (4,), (8, 4))
    assert resnet.make_levels((16, 32), 1, attention) == [(16, 1, None), (32, 1, value)]
    assert resnet.make_levels((16, 32), (1, 3), ()) == [(16, 1, None), (32, 3, None)]
    with pytest.raises(ValueError, match=r"attention_resolutions has 16, but the levels of this net are \(8, 4\) px"):
        attention_at(value, (4, 16), (8, 4))
    with pytest.raises(ValueError, match="depth has 3 values, but this net has 2 levels"):
        resnet.make_levels((16, 32), (1, 2, 3), ())
    resnet.check_size(24, 8, 3, 2)
    with pytest.raises(ValueError, match=r"image size 24x12 .* 3 levels and patch=2 need a multiple of 8"):
        resnet.check_size(24, 12, 3, 2)
