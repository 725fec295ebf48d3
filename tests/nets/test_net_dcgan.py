"""DCGAN and the MLP pair: sizes, norms over devices, spectral norms against the SVD, labels, what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import dcgan, gan_mlp
from flaxgen.nets.strided import correlate, enlarge, shrink
from flaxgen.parallel import AXIS

SMALL = {"image_size": 16, "channels": 1, "width": 4}


def shapes(net, *inputs):
    return jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), *inputs))


def test_three_contractions_are_each_others_derivatives():
    """<shrink(large, kernel), small> = <large, enlarge(small, kernel)> = <kernel, correlate(large, small)>, and the
    first is its definition."""
    rng = np.random.default_rng(0)
    large, kernel, small = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 9, 7, 3), (3, 3, 3, 4), (2, 4, 3, 4))
    )
    shrunk = np.asarray(jax.jit(shrink, static_argnums=2)(large, kernel, 2))
    window = np.einsum("byxc,yxco->bo", np.float64(large[:, 2:5, 4:7]), np.float64(kernel))
    np.testing.assert_allclose(shrunk[:, 1, 2], window, atol=1e-5)
    expected = np.vdot(shrunk, small)
    assert np.vdot(jax.jit(enlarge, static_argnums=2)(small, kernel, 2), large) == pytest.approx(expected, rel=1e-4)
    assert np.vdot(jax.jit(correlate, static_argnums=2)(large, small, 2), kernel) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("function", [shrink, enlarge, correlate])
def test_their_derivatives_are_those_of_differences(function, pad):
    """Bilinear, so central differences are exact; second derivatives as well."""
    rng = np.random.default_rng(0)
    large, kernel, small = (1, 5, 5, 2), (3, 3, 2, 3), (1, 2 + pad, 2 + pad, 3)
    given = {shrink: (large, kernel), enlarge: (small, kernel), correlate: (large, small)}[function]
    a, b, da, db = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in given * 2)

    @jax.jit
    def both(a, b):
        def length(a, b):
            y, back = jax.vjp(lambda a, b: function(a, b, 2, pad), a, b)
            return sum(jnp.square(x).sum() for x in back(y))

        return length(a, b), jax.grad(length, (0, 1))(a, b)

    h = 1e-2
    slope = (both(a + h * da, b + h * db)[0] - both(a - h * da, b - h * db)[0]) / (2 * h)
    first, second = both(a, b)[1]
    assert np.vdot(first, da) + np.vdot(second, db) == pytest.approx(float(slope), rel=1e-2)


def test_padding_is_zeros_around_the_picture():
    rng = np.random.default_rng(0)
    large, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 5, 5, 3), (3, 3, 3, 4)))
    wide = jnp.pad(large, ((0, 0), (1, 1), (1, 1), (0, 0)))
    padded, unpadded = jax.jit(lambda: (shrink(large, kernel, 2, 1), shrink(wide, kernel, 2)))()
    np.testing.assert_allclose(padded, unpadded, atol=1e-5)


def test_derivatives_are_convolutions_in_the_order_that_is_fast_in_branches():
    """First and second ones; of the ways to write the same sum, only one is fast on a CPU outside the main program."""

    def penalty(kernel, x):
        def logits(x):
            return jnp.sum(jnp.tanh(enlarge(shrink(x, kernel, 2, 1), kernel, 2, 1)) * shrink(x, kernel[:1, :1], 1))

        return jnp.sum(jax.grad(logits)(x) ** 2)

    kernel, x = jnp.ones((3, 3, 2, 2)), jnp.ones((1, 5, 5, 2))
    written = jax.jit(lambda k, x: jax.lax.cond(x[0, 0, 0, 0] > 0, jax.grad(penalty), lambda k, x: k, k, x))
    orders = re.findall(r"dim_numbers = (\S.*?), window", written.lower(kernel, x).as_text())
    assert len(orders) > 10
    assert set(orders) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


@pytest.mark.parametrize("size", dcgan.SIZES)
def test_pictures_of_every_size(size):
    z = jnp.zeros((2, 128))
    images, _ = shapes(dcgan.Generator(size, 3), z)
    assert images.shape == (2, size, size, 3)
    logits, _ = shapes(dcgan.Discriminator(size, 3), jnp.zeros(images.shape))
    assert logits.shape == (2,)


def test_the_generator_of_64_pixels_has_the_papers_size():
    """Project to 4x4x1024, then kernels of 5x5 in the paper, 4x4 here [Radford16, fig. 1]."""
    _, variables = shapes(dcgan.Generator(64, 3, latent_dim=100, width=128), jnp.zeros((1, 100)))
    assert variables["params"]["in"]["kernel"].shape == (100, 4 * 4 * 1024)
    kernels = [variables["params"][f"kernel_{i}"].shape for i in range(4)]
    assert kernels == [(4, 4, 512, 1024), (4, 4, 256, 512), (4, 4, 128, 256), (4, 4, 3, 128)]


def test_batch_norm_over_devices_is_one():
    """Pictures in training, and the moved statistics, on one device and on four; at rest examples stand alone."""
    net = dcgan.Generator(**SMALL, latent_dim=5)
    z = jax.random.normal(jax.random.key(0), (8, 5))
    variables = jax.jit(net.init)(jax.random.key(1), z)

    def run(net, z):
        return net.apply(variables, z, train=True, mutable=["buffers"])

    images, moved = jax.jit(lambda z: run(net, z))(z)
    part = net.clone(axis_name=AXIS)
    spread, spread_moved = jax.pmap(lambda z: run(part, z), axis_name=AXIS, devices=jax.devices()[:4])(
        z.reshape(4, 2, 5)
    )
    np.testing.assert_allclose(spread.reshape(images.shape), images, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[3], b, atol=1e-6), spread_moved, moved)
    before, after = (jax.tree.leaves(tree["buffers"])[0] for tree in (variables, moved))
    assert np.abs(after - before).max() > 1e-4
    rest = jax.jit(lambda z: net.apply(variables, z))
    np.testing.assert_allclose(rest(z)[:2], rest(jnp.concatenate((z[:2], -z[2:])))[:2], atol=1e-6)


def test_spectral_norms_are_the_largest_singular_values():
    """After a few iterations, by numpy's SVD; the logits move only while the iteration does."""
    net = dcgan.Discriminator(**SMALL, num_classes=3, norm="none", spectral=True)
    x, label = jax.random.normal(jax.random.key(0), (2, 16, 16, 1)), jnp.array([0, 2])
    variables = jax.jit(net.init)(jax.random.key(1), x, label)
    update = jax.jit(lambda v: {**v, **net.apply(v, x, label, train=True, mutable=["buffers"])[1]})
    for _ in range(200):
        variables = update(variables)
    for name in ("kernel_0", "kernel_1", "out", "label"):
        kernel = variables["params"][name]
        normal = dcgan.Spectral().apply({"buffers": variables["buffers"][f"{name}_spectral"]}, kernel, False)
        largest = np.linalg.svd(np.asarray(normal).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        assert largest == pytest.approx(1, rel=2e-3)
    twice = jax.tree.map(lambda p: 2 * p, variables["params"])
    logits = jax.jit(lambda params: net.apply({**variables, "params": params}, x, label))
    np.testing.assert_allclose(logits(twice), logits(variables["params"]), atol=1e-5)


@pytest.mark.parametrize(
    "net", [dcgan.Discriminator(**SMALL, num_classes=3, norm="layer"), gan_mlp.Discriminator((3, 2), 3)]
)
def test_a_logit_is_of_its_example_and_label(net):
    shape = (3, 16, 16, 1) if isinstance(net, dcgan.Discriminator) else (3, 3, 2)
    x, label = jax.random.normal(jax.random.key(0), shape), jnp.array([0, 1, 2])
    variables = jax.jit(net.init)(jax.random.key(1), x, label)
    run = jax.jit(lambda x, label: net.apply(variables, x, label))
    logits = run(x, label)
    np.testing.assert_allclose(run(x.at[0].add(1.0), label)[1:], logits[1:], atol=1e-6)
    assert np.abs(run(x.at[0].add(1.0), label)[0] - logits[0]) > 1e-5
    assert np.abs(run(x, label.at[0].set(2))[0] - logits[0]) > 1e-5


def test_the_perceptrons_shapes_and_bounds():
    z, label = 50 * jax.random.normal(jax.random.key(0), (4, 2)), jnp.array([0, 1, 2, 0])
    net = gan_mlp.Generator((4, 4, 1), num_classes=3, bounded=True)
    variables = jax.jit(net.init)(jax.random.key(1), z, label)
    images = jnp.asarray(net.apply(variables, z, label))
    assert images.shape == (4, 4, 4, 1)
    assert np.abs(images).max() <= 1
    assert np.abs(images - jnp.asarray(net.apply(variables, z, label[::-1]))).max() > 1e-3
    free = jnp.asarray(net.clone(bounded=False).apply(variables, z, label))
    np.testing.assert_allclose(jnp.tanh(free), images, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (dcgan.Generator(8), (1, 128), "image_size=8 is not one of 16, 32, 64, 128"),
        (dcgan.Generator(32), (1, 100), "'z' is 100 wide, latent_dim=128"),
        (dcgan.Generator(32, num_classes=2), (1, 128), "needs the condition 'label'"),
        (dcgan.Generator(32, norm="group"), (1, 128), "norm='group' is not one of batch, layer, none"),
        (dcgan.Discriminator(32), (1, 32, 32, 1), "pictures of 32x32x3, got 32x32x1"),
        (gan_mlp.Generator(), (1, 3), "'z' is 3 wide"),
        (gan_mlp.Discriminator((3,)), (1, 2), "examples of shape"),
    ],
)
def test_what_does_not_fit_is_named(net, shape, message):
    with pytest.raises(ValueError, match=message):
        shapes(net, jnp.zeros(shape))
