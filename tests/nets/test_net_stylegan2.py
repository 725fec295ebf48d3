"""StyleGAN2: sizes as published, modulation by a loop, styles, noise, truncation and the minibatch's deviation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import stylegan2_layers as layers
from flaxgen.nets.stylegan2 import Generator, track_style
from flaxgen.nets.stylegan2_discriminator import Discriminator, minibatch_deviation
from flaxgen.parallel import AXIS, example_keys

TINY = Generator(8, 3, latent_dim=6, style_dim=5, num_classes=3, mapping_depth=2, channel_base=64, channel_max=8)
LABEL = jnp.array([0, 1, 2, 0])


def count(net, *inputs):
    """Numbers in the parameters of a net, buffers aside."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs))["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("size", "classes", "depth", "architecture", "generator", "discriminator"),
    [
        (32, 0, 2, "orig", 19_947_539, 20_720_641),
        (32, 10, 2, "orig", 20_215_315, 23_089_664),
        (1024, 0, 8, "resnet", 30_370_060, 29_012_513),
    ],
)
def test_parameters_are_as_many_as_nvlabs(size, classes, depth, architecture, generator, discriminator):
    """Counted from stylegan2-ada-pytorch's nets, of its configs `cifar`, with and without classes, and `stylegan2`."""
    label = jnp.zeros(1, jnp.int32) if classes else None
    net = Generator(size, num_classes=classes, mapping_depth=depth)
    assert count(net, jnp.zeros((1, 512)), label) == generator
    net = Discriminator(size, num_classes=classes, architecture=architecture)
    assert count(net, jnp.zeros((1, size, size, 3)), label) == discriminator


@pytest.fixture(scope="module")
def tiny():
    """The tiny generator's variables, none of them where it starts, and compiled calls of it."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: TINY.init(jax.random.key(0), jnp.zeros((4, 6)), LABEL))

    def draw(path, leaf):
        scale = 100 if path[-2].key.startswith("dense") and path[-1].key == "kernel" else 1  # one over their rate
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)

    @functools.partial(jax.jit, static_argnames=("cutoff",))
    def style(z, label, truncation=0.5, cutoff=None):
        return TINY.apply(variables, z, label, truncation=truncation, cutoff=cutoff, method="map")

    @jax.jit
    def synthesize(w, keys=None):
        return TINY.apply(variables, w, keys, method="synthesize")

    return variables, style, synthesize


Z = jax.random.normal(jax.random.key(1), (4, 6))


def test_truncation_goes_to_the_mean_style(tiny):
    variables, style, _ = tiny
    mean = np.broadcast_to(variables["buffers"]["w_avg"], (4, 4, 5))
    whole = jnp.asarray(TINY.apply(variables, Z, LABEL, method="map"))
    np.testing.assert_allclose(style(Z, LABEL, 0.0), mean, atol=1e-6)
    np.testing.assert_allclose(style(Z, LABEL, 1.0), whole, atol=1e-5)
    half = style(Z, LABEL, 0.5, cutoff=3)
    np.testing.assert_allclose(half[:, :3], (whole[:, :3] + mean[:, :3]) / 2, atol=1e-5)
    np.testing.assert_allclose(half[:, 3], whole[:, 3], atol=1e-5)


def test_a_style_is_of_its_latents_direction_and_its_label(tiny):
    _, style, _ = tiny
    np.testing.assert_allclose(style(3 * Z, LABEL), style(Z, LABEL), atol=1e-4)
    others = style(Z, LABEL.at[0].set(1))
    assert np.abs(others[0] - style(Z, LABEL)[0]).max() > 1e-3
    np.testing.assert_allclose(others[1:], style(Z, LABEL)[1:], atol=1e-5)


def test_a_picture_is_of_its_own_style_and_key(tiny):
    """Each example on its own, and each layer's style and noise has a say."""
    _, style, synthesize = tiny
    w, keys = style(Z, LABEL), example_keys(jax.random.key(2), 4)
    images, constant = synthesize(w, keys), synthesize(w)
    assert images.shape == (4, 8, 8, 3)
    same = np.array([0, 2, 3])
    np.testing.assert_allclose(synthesize(w, keys[jnp.array([0, 2, 2, 3])])[same], images[same], atol=1e-4)
    assert np.abs(images - constant).max(axis=(1, 2, 3)).min() > 1e-3
    np.testing.assert_array_equal(synthesize(w), constant)
    for layer in range(TINY.num_layers):
        mixed = jnp.concatenate((w[:, :layer], w[::-1, layer : layer + 1], w[:, layer + 1 :]), axis=1)
        assert np.abs(synthesize(mixed) - constant).max(axis=(1, 2, 3)).min() > 1e-3


def test_the_mean_style_follows_batches():
    buffers = {"w_avg": jnp.array([1.0, 2.0]), "synthesis": {}}
    moved = track_style(buffers, jnp.array([3.0, 2.0]), 0.75)
    np.testing.assert_allclose(moved["w_avg"], [1.5, 2.0])
    assert moved.keys() == buffers.keys()


def doubled(x, kernel):
    """x twice as large by the definition: zeros in between, a true convolution, the filter; in float64 via the matrix
    of one pixel's response."""
    size, out = x.shape[0], np.zeros((2 * x.shape[0] + 5, 2 * x.shape[1] + 5, kernel.shape[-1]))
    line = np.convolve([1, 3, 3, 1], [1]) / 8 * 2
    response = np.zeros((6, 6, *kernel.shape[2:]))
    for i in range(3):
        for j in range(3):
            response[i : i + 4, j : j + 4] += np.multiply.outer(np.outer(line, line), kernel[i, j])
    for i in range(size):
        for j in range(size):
            out[2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += np.einsum("c,yxco->yxo", x[i, j], response)
    return out[2 : 2 + 2 * size, 2 : 2 + 2 * size]


def one_by_one(x, kernel, styles, up):
    """Modulated convolution by a kernel an example, in float64 [Karras20, eq. 1 to 3]."""
    pictures = []
    for picture, style in zip(np.float64(x), np.float64(styles), strict=True):
        modulated = np.float64(kernel) * style[:, None]
        modulated = modulated / np.sqrt(np.square(modulated).sum((0, 1, 2)) + 1e-8)
        if up:
            pictures.append(doubled(picture, modulated))
            continue
        wide = np.pad(picture, ((1, 1), (1, 1), (0, 0)))
        h, w = picture.shape[:2]
        shifts = [wide[i : i + h, j : j + w] @ modulated[i, j] for i in range(3) for j in range(3)]
        pictures.append(sum(shifts))
    return np.stack(pictures)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_a_kernel_an_example(up):
    """Values, and derivatives along random directions by differences of the loop."""
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape) for shape in ((3, 4, 4, 5), (3, 3, 5, 6), (3, 5))]
    given[2] = 1 + 0.3 * given[2]

    def run(x, kernel, styles):
        y = layers.modulated_conv(x, kernel, styles, up=up)
        return y * layers.demodulation(kernel, styles)[:, None, None]

    expected = one_by_one(*given, up)
    single = [jnp.asarray(value, jnp.float32) for value in given]

    @jax.jit
    def both(*single):
        y, back = jax.vjp(run, *single)
        return y, back(jnp.asarray(weights, jnp.float32))

    weights = rng.normal(size=expected.shape)
    y, gradients = both(*single)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for place, gradient in enumerate(gradients):
        direction = rng.normal(size=given[place].shape)
        ends = [[v + h * direction if i == place else v for i, v in enumerate(given)] for h in (1e-5, -1e-5)]
        above, below = ((one_by_one(*end, up) * weights).sum() for end in ends)
        assert np.vdot(gradient, direction) == pytest.approx((above - below) / 2e-5, rel=1e-4)


def test_groups_are_those_of_the_whole_batch():
    """Deviations under pmap are one device's; and by hand, of examples that are N / group apart."""
    x = np.random.default_rng(0).normal(size=(16, 2, 2, 6)).astype(np.float32)
    alone = minibatch_deviation(jnp.asarray(x), 4, 2)
    for i in range(16):
        group = np.float64(x[i % 4 :: 4]).reshape(4, 4, 2, 3)
        np.testing.assert_allclose(alone[i], group.std(0).mean((0, 2)), atol=1e-5)
    spread = jax.pmap(lambda x: minibatch_deviation(x, 4, 2, AXIS), axis_name=AXIS)(x.reshape(8, 2, 2, 2, 6))
    np.testing.assert_allclose(spread.reshape(16, 2), alone, atol=1e-6)


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_discriminators_over_devices_are_one(architecture):
    """Logits, and gradients of their squares' mean with respect to the pictures, on one device and on four."""
    net = Discriminator(8, 3, num_classes=2, mapping_depth=1, channel_base=32, channel_max=4, architecture=architecture)
    rng = np.random.default_rng(0)
    x, label = jnp.asarray(rng.normal(size=(8, 8, 8, 3)), jnp.float32), jnp.arange(8) % 2
    params = jax.jit(net.init)(jax.random.key(0), x, label)

    def run(net, x, label):
        def total(x):
            logits = net.apply(params, x, label)
            return jnp.square(logits).sum(), logits

        return jax.grad(total, has_aux=True)(x)

    gradient, logits = jax.jit(lambda x, label: run(net, x, label))(x, label)
    part = net.clone(axis_name=AXIS)
    over = jax.pmap(lambda x, label: run(part, x, label), axis_name=AXIS, devices=jax.devices()[:4])
    spread = over(x.reshape(4, 2, 8, 8, 3), label.reshape(4, 2))
    np.testing.assert_allclose(spread[1].reshape(8), logits, atol=1e-5)
    np.testing.assert_allclose(spread[0].reshape(x.shape), gradient, atol=1e-5)
    assert np.abs(np.asarray(gradient)).max(axis=(1, 2, 3)).min() > 1e-6


def test_low_precision_is_near():
    """bfloat16 where it is asked for: other numbers, but not by much."""
    x, net = jax.random.normal(jax.random.key(0), (4, 8, 8, 3)), Discriminator(8, channel_base=32, channel_max=8)
    params = jax.jit(net.init)(jax.random.key(1), x)
    nets = (net, net.clone(dtype="bfloat16", dtype_blocks=1))
    exact, low = jax.jit(lambda params, x: [n.apply(params, x) for n in nets])(params, x)
    assert low.dtype == jnp.float32
    assert 0 < np.abs(exact - low).max() < 0.1


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (Generator(24, 3), (1, 512), "image_size=24 is not a power of two"),
        (Generator(8, 3, latent_dim=6), (1, 5), "'z' is 5 wide"),
        (Generator(8, 3, num_classes=2), (1, 512), "needs the condition 'label'"),
        (Generator(8, 3, architecture="sum"), (1, 512), "architecture='sum' is not one of orig, skip, resnet"),
        (Generator(64, 3, channel_base=32), (1, 512), "leave no channels at 64 pixels"),
        (Generator(8, 3, dtype="float16"), (1, 512), "dtype='float16' is not one of"),
        (Discriminator(20), (1, 20, 20, 3), "image_size=20 is not a power of two"),
        (Discriminator(4), (1, 4, 4, 3), "expected 8 or more"),
        (Discriminator(8), (1, 16, 16, 3), "pictures of 8x8x3, got 16x16x3"),
        (Discriminator(8, group=4), (6, 8, 8, 3), "a batch of 6 is not divisible by the minibatch deviation's group=4"),
        (Discriminator(8, num_classes=2), (1, 8, 8, 3), "needs the condition 'label'"),
    ],
)
def test_what_does_not_fit_is_named(net, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(shape)))
    assert "\n" not in str(caught.value)
