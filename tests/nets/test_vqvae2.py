"""The net of two maps: who reads whom, sizes, and what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.vqvae2 import VqVae2, join, split

TINY = VqVae2(image_size=16, factor=2, top_factor=8, channels=4, residual_channels=4, depth=1, latent_channels=3)
X = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1.0)


@pytest.fixture(scope="module")
def params(shaken):
    return shaken(TINY, X)


def run(params, method, *inputs):
    return TINY.apply({"params": params}, *inputs, method=method)


def test_both_maps_are_one_and_come_apart_again():
    top, bottom = jnp.arange(2 * 2 * 3 * 4.0).reshape(2, 2, 3, 4), jnp.ones((2, 8, 12, 4))
    both = join(top, bottom)
    assert both.shape == (2, 8, 12, 8)
    for row, column in ((0, 0), (3, 3), (4, 7), (7, 11)):
        np.testing.assert_array_equal(both[:, row, column, :4], top[:, row // 4, column // 4])
    for a, b in zip(split(both, 4), (top, bottom), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_side_reads_what_the_paper_says(params):
    """The bottom is quantised knowing the top's codes, and the decoder reads both maps."""
    top, below = run(params, "encode", X)
    assert (top.shape, below.shape) == ((2, 2, 2, 3), (2, 8, 8, 4))
    bottom = run(params, "refine", below, top)
    assert bottom.shape == (2, 8, 8, 3)
    moved = run(params, "refine", below, top + 1.0)
    assert (jnp.abs(moved - bottom).max(-1) > 1e-6).all()
    drawn = run(params, "decode", join(top, bottom))
    assert drawn.shape == X.shape
    for other in (join(top + 1.0, bottom), join(top, bottom + 1.0)):
        assert (jnp.abs(run(params, "decode", other) - drawn).max((1, 2, 3)) > 1e-5).all()


def test_the_sizes_published_by_another_implementation_of_the_same_layers():
    """1.39 million numbers for 2 blocks of 32 inside, codebooks apart, where the top's one halving is half as wide:
    a convolution of 4 x 4 to 128 and one of 3 x 3 from there are here what goes to 64 and from there."""
    net = VqVae2(residual_channels=32)
    made = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(made))
    wider = (16 * 128 * 128 + 128 + 9 * 128 * 128) - (16 * 128 * 64 + 64 + 9 * 64 * 128)
    assert round(count - wider, -4) == 1_390_000


@pytest.mark.parametrize(
    ("net", "size", "said"),
    [
        (TINY.clone(factor=3), 16, "factor=3: expected a power of two, 2 or more"),
        (TINY.clone(top_factor=2), 16, "top_factor=2: expected a power of two, 4 or more"),
        (TINY.clone(dtype="half"), 16, "dtype='half' is not one of"),
        (TINY, 12, "image size 12x12: expected a multiple of top_factor=8"),
    ],
)
def test_what_is_wrong_is_named(net, size, said):
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
