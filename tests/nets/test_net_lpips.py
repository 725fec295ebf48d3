"""LPIPS: a distance by hand, gradients where features are 0, what is refused. Numbers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.lpips import SCALE, SHIFT, Lpips, unit

SMALL = Lpips(widths=((4,), (6, 6)))


def shapes(net, *shape):
    x = jnp.zeros(shape)
    return jax.eval_shape(net.init, jax.random.key(0), x, x)["params"]


def test_published_sizes():
    params = shapes(Lpips(), 1, 16, 16, 3)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params["vgg"])) == 14_714_688
    assert sum(params[f"weight_{i}"].shape[0] for i in range(5)) == 1472


def test_a_distance_by_hand(shaken, run):
    """Of one depth and kernels that see one pixel."""
    net = Lpips(widths=((4,),))
    x, y = (jax.random.uniform(jax.random.key(i), (2, 3, 5, 3), minval=-1) for i in (0, 1))
    params = shaken(net, x, y)
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[1, 1] = params["vgg"]["conv_0_0"]["kernel"][1, 1]
    params["vgg"]["conv_0_0"]["kernel"] = kernel

    def features(x):
        h = (np.asarray(x) - np.array(SHIFT)) / np.array(SCALE) @ kernel[1, 1] + params["vgg"]["conv_0_0"]["bias"]
        h = np.maximum(h, 0)
        return h / (np.linalg.norm(h, axis=-1, keepdims=True) + 1e-10)

    expected = ((features(x) - features(y)) ** 2 @ params["weight_0"]).mean((1, 2))
    np.testing.assert_allclose(run(net, params, x, y), expected, atol=1e-5)


def test_it_is_a_distance(shaken, run):
    """With weights above 0, as the published: 0 of the same, above 0 of others, the same both ways."""
    x, y = (jax.random.uniform(jax.random.key(i), (2, 7, 6, 3), minval=-1) for i in (0, 1))
    params = shaken(SMALL, x, y)
    params |= {name: np.abs(params[name]) for name in ("weight_0", "weight_1")}
    np.testing.assert_array_equal(run(SMALL, params, x, x), 0)
    there, back = run(SMALL, params, x, y), run(SMALL, params, y, x)
    assert (np.asarray(there) > 1e-3).all()
    np.testing.assert_allclose(there, back, rtol=1e-5)


def test_gradients_are_finite_where_all_features_are_zero():
    gradient = jax.jit(jax.grad(lambda x: unit(x).sum()))(jnp.array([[0.0, 0.0], [3.0, 4.0]]))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0], 0)
    np.testing.assert_allclose(gradient[1], [(16 - 12) / 125, (9 - 12) / 125], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 8, 1), "x has 1 channels, in_channels=3"),
        ((1, 16, 15, 3), "image size 16x15 is too small for LPIPS: 16"),
    ],
)
def test_what_has_no_distance_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        shapes(Lpips(), *shape)
