"""DALL-E's discrete autoencoder: published sizes, its block by hand, the range of pixels. Numbers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.dalle_vae import INIT, Block, DalleVae

SMALL = DalleVae(image_size=8, channels=8, multipliers=(1, 2), depth=1, codes=5, bottleneck=4)


def shapes(net, *shape, method="__call__"):
    return jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.zeros(shape), method=method))


def test_published_sizes():
    pictures, variables = shapes(DalleVae(), 1, 16, 16, 3)
    assert pictures.shape == (1, 16, 16, 6)
    counts = {k: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(v)) for k, v in variables["params"].items()}
    assert counts == {"encoder": 53_786_240, "decoder": 43_829_766}
    assert {k: len(jax.tree.leaves(v)) for k, v in variables["params"].items()} == {"encoder": 74, "decoder": 76}


def test_logits_have_the_shape_that_properties_say():
    net = SMALL.clone(multipliers=(1, 2, 1), in_channels=1, dtype="bfloat16", remat=True)
    logits, _ = shapes(net, 2, 16, 8, 1, method="encode")
    assert (logits.shape, logits.dtype) == ((2, 16 // net.factor, 8 // net.factor, net.code_dim), jnp.float32)
    pictures, _ = shapes(net, *logits.shape[:3], net.latent_dim, method="decode")
    assert (pictures.shape, pictures.dtype) == ((2, 16, 8, 2), jnp.float32)


def test_a_block_by_hand(shaken, run):
    """Of one pixel, whose kernels' middles are matrices."""
    x = jax.random.normal(jax.random.key(0), (3, 1, 1, 4))
    block = Block(8, (1, 3, 3, 3), 0.25)
    params = shaken(block, x)
    h = np.asarray(x)[:, 0, 0]
    expected = h @ params["shortcut"]["kernel"][0, 0] + params["shortcut"]["bias"]
    for i in (1, 2, 3, 4):
        kernel, bias = params[f"conv_{i}"]["kernel"], params[f"conv_{i}"]["bias"]
        middle = kernel.shape[0] // 2
        h = np.maximum(h, 0) @ kernel[middle, middle] + bias
    np.testing.assert_allclose(run(block, params, x)[:, 0, 0], expected + 0.25 * h, atol=1e-5)


def test_pixels_are_seen_from_a_tenth_to_nine_tenths(shaken):
    params = shaken(SMALL, jnp.zeros((1, 8, 8, 3)))
    x = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3), minval=-1)

    @jax.jit
    def both():
        inside = SMALL.apply({"params": params}, 0.8 * (x + 1) / 2 + 0.1, method=lambda net, x: net.encoder(x))
        return inside, SMALL.apply({"params": params}, x, method="encode")

    np.testing.assert_allclose(*both(), atol=1e-5)


def test_kernels_start_as_in_the_paper():
    """Normal of variance 1/inputs [Ramesh21, app. A.1], not cut off."""
    kernel = np.asarray(jax.jit(INIT, static_argnums=1)(jax.random.key(0), (3, 3, 64, 64)))
    assert kernel.std() == pytest.approx((9 * 64) ** -0.5, rel=0.02)
    assert np.abs(kernel).max() > 3.5 * (9 * 64) ** -0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 6}, "a group has 6 channels: expected a multiple of 4"),
        ({"codes": 0}, "codes=0: expected 1 or more"),
        ({"multipliers": ()}, "expected levels of 1 channel or more"),
    ],
)
def test_fields_that_make_no_net_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL.clone(**changes), 1, 8, 8, 3)


@pytest.mark.parametrize(
    ("method", "shape", "message"),
    [
        ("encode", (1, 8, 7, 3), "image size 8x7 cannot be divided by this net: 2 levels"),
        ("encode", (1, 8, 8, 1), "x has 1 channels, in_channels=3 expects 3"),
        ("decode", (1, 4, 4, 4), "z has 4 channels, this decoder reads 5"),
    ],
)
def test_arrays_of_another_shape_are_refused(method, shape, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL, *shape, method=method)
