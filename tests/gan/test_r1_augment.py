"""R1 of a discriminator that sees augmented pictures: its gradient goes through all of ADA twice.

For a key an augmentation is an affine map of the picture, whose matrix is measured column by column, without
derivatives. With it the penalty of a small smooth net is a formula, and float64 has its differences.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import PIPES, make_augment
from flaxgen.gan.regularize import r1
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.parallel import example_keys

SIDE, COUNT, HIDDEN = 8, 4, 5
SHAPE, PIXELS = (SIDE, SIDE, 3), SIDE * SIDE * 3
AUGMENT = jax.jit(make_augment(PIPES["bgcfnc"], SHAPE))
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(-1, 1, (COUNT, *SHAPE)).astype(np.float32)
PARAMS = {
    "hidden": RANDOM.normal(size=(HIDDEN, PIXELS)) / np.sqrt(PIXELS),
    "out": RANDOM.normal(size=HIDDEN),
}
DIRECTION = {name: RANDOM.normal(size=value.shape) for name, value in PARAMS.items()}


def keys():
    """The same ones every time, and each time fresh."""
    return example_keys(jax.random.key(3), COUNT)


@pytest.fixture(scope="module", params=[0.0, 1.0])
def augmentation(request):
    """(p, matrices [B D D], offsets [B D])."""
    basis = jnp.concatenate((jnp.zeros((1, PIXELS)), jnp.eye(PIXELS))).reshape(-1, *SHAPE)
    found = [
        np.asarray(AUGMENT(basis, jnp.float32(request.param), jnp.repeat(key[None], len(basis)))) for key in keys()
    ]
    flat = np.stack(found).reshape(COUNT, PIXELS + 1, PIXELS).astype(np.float64)
    return request.param, (flat[:, 1:] - flat[:, :1]).swapaxes(1, 2), flat[:, 0]


def penalty(params, matrices, offsets):
    """Mean |A^T W^T (1 - tanh^2) v|^2 of D = v tanh(W (A x + b)), in float64."""
    x = IMAGES.reshape(COUNT, -1).astype(np.float64)
    seen = np.einsum("bij,bj->bi", matrices, x) + offsets
    slope = 1 - np.tanh(seen @ params["hidden"].T) ** 2
    gradients = np.einsum("bij,bi->bj", matrices, (slope * params["out"]) @ params["hidden"])
    return (gradients**2).sum(1).mean()


@jax.jit
def ours(params, p):
    """The penalty, and its gradient after the net's parameters."""

    def r1_of(params):
        def critic(x):
            seen = AUGMENT(x, p, keys()).reshape(COUNT, -1)
            return jnp.tanh(seen @ params["hidden"].T) @ params["out"]

        return r1(critic, jnp.asarray(IMAGES))

    return jax.value_and_grad(r1_of)(params)


def test_penalty_and_its_gradient(augmentation):
    p, matrices, offsets = augmentation
    value, gradient = ours(jax.tree.map(jnp.float32, PARAMS), jnp.float32(p))
    np.testing.assert_allclose(value, penalty(PARAMS, matrices, offsets), rtol=1e-4)
    for name in PARAMS:
        step = {key: 1e-6 * DIRECTION[key] * (key == name) for key in PARAMS}
        after, before = (
            penalty({key: PARAMS[key] + sign * step[key] for key in PARAMS}, matrices, offsets) for sign in (1, -1)
        )
        slope = np.vdot(gradient[name], DIRECTION[name])
        scale = np.linalg.norm(gradient[name]) * np.linalg.norm(DIRECTION[name])
        assert slope == pytest.approx((after - before) / 2e-6, abs=1e-5 * scale), name


def test_nothing_is_moved_at_zero_and_much_at_one(augmentation):
    """So that the test above is one of both."""
    p, matrices, _ = augmentation
    moved = np.abs(matrices - np.eye(PIXELS)).max((1, 2))
    assert (moved > 0.1).all() if p else (moved == 0).all()


@pytest.mark.slow  # compiles second derivatives of both
def test_r1_trains_stylegan2s_discriminator():
    """Every parameter that pictures meet has a gradient, and all are numbers."""
    net = Discriminator(SIDE, channel_base=32, channel_max=4)
    params = jax.jit(net.init)(jax.random.key(0), IMAGES)["params"]

    def ours(params):
        def critic(x):
            return jnp.asarray(net.apply({"params": params}, AUGMENT(x, jnp.float32(1), keys())))

        return r1(critic, jnp.asarray(IMAGES))

    gradient = jax.jit(jax.grad(ours))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all(), path
        assert path[-1].key == "bias" or jnp.any(leaf != 0), path
