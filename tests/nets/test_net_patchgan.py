"""The patch discriminator: size, receptive fields, norms over devices, what is refused. Numbers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.patchgan import PatchDiscriminator
from flaxgen.parallel import AXIS

SMALL = PatchDiscriminator(image_size=16, width=4, depth=2)


def shapes(net, *shape):
    return jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.zeros(shape)))


def test_taming_transformers_size():
    logits, variables = shapes(PatchDiscriminator(), 2, 256, 256, 3)
    assert logits.shape == (2, 30, 30)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == 2_765_633
    kernels = [variables["params"][f"kernel_{i}"].shape for i in range(5)]
    assert [shape[-1] for shape in kernels] == [64, 128, 256, 512, 1]
    deeper = shapes(PatchDiscriminator(depth=5), 1, 96, 96, 3)[1]["params"]
    assert [deeper[f"kernel_{i}"].shape[-1] for i in range(7)] == [64, 128, 256, 512, 512, 512, 1]


@pytest.fixture(scope="module")
def variables():
    return jax.jit(SMALL.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_a_logit_sees_a_patch():
    """Of 16 pixels at depth 1; 70 at depth 3 [Isola17, app. 6.1.2]."""
    net = SMALL.clone(depth=1)
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    x = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    gradient = jax.jit(jax.grad(lambda x: net.apply(params, x)[0, 7, 7]))(x)
    rows = np.flatnonzero(np.abs(gradient[0]).sum((1, 2)))
    assert (rows.min(), rows.max() - rows.min() + 1) == (2 * (7 - 2) - 1, 16)


def test_batch_norm_over_devices_is_one(variables):
    """Logits in training, and the moved statistics, on one device and on four; at rest pictures stand alone."""
    x = jax.random.normal(jax.random.key(0), (8, 16, 16, 3))

    def run(net, x):
        return net.apply(variables, x, train=True, mutable=["buffers"])

    logits, moved = jax.jit(lambda x: run(SMALL, x))(x)
    part = SMALL.clone(axis_name=AXIS)
    spread, spread_moved = jax.pmap(lambda x: run(part, x), axis_name=AXIS, devices=jax.devices()[:4])(
        x.reshape(4, 2, 16, 16, 3)
    )
    np.testing.assert_allclose(spread.reshape(logits.shape), logits, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[3], b, atol=1e-6), spread_moved, moved)
    rest = jax.jit(lambda x: SMALL.apply(variables, x))
    np.testing.assert_allclose(rest(x)[:2], rest(jnp.concatenate((x[:2], -x[2:])))[:2], atol=1e-6)
    assert np.abs(logits - rest(x)).max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (1, 18, 16, 3), "image size 18x16 cannot be judged by this net: depth=2 needs a multiple of 4 from 12 on"),
        ({"depth": 3}, (1, 16, 16, 3), "depth=3 needs a multiple of 8 from 24 on; lower the depth"),
        ({}, (1, 16, 16, 1), "x has 1 channels, in_channels=3"),
        ({"depth": 0}, (1, 16, 16, 3), "depth=0: expected 1 or more"),
        ({"norm": "group"}, (1, 16, 16, 3), "norm='group' is not one of batch, layer, none"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes, shape, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL.clone(**changes), *shape)
