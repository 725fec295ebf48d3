"""The FID Inception without its weights: what its poolings and its resize read, and how large it is. Numbers:
tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import inception
from flaxgen.nets.inception import FEATURES, Block, Inception, Mixed, NormConv, Unit

KERAS_PARAMETERS = 23_851_784
"""keras.applications.InceptionV3: 1000 classes, and batch normalisation without its scales."""


def abstract_params(images):
    return jax.eval_shape(lambda: Inception().init(jax.random.key(0), images))["params"]


def test_parameters_are_those_of_the_published_net():
    params = abstract_params(jnp.zeros((1, 8, 8, 3), jnp.uint8))
    sizes = {"/".join(k.key for k in path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    scales = sum(size for name, size in sizes.items() if name.endswith("/scale"))
    assert sum(sizes.values()) == KERAS_PARAMETERS + scales + 8 * (2048 + 1)
    assert sum(name.endswith("/variance") for name in sizes) == 94


@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (1, 375, 500, 3), (1, 1, 1, 3)])
def test_features_have_the_width_of_their_name(shape):
    out, _ = jax.eval_shape(lambda: Inception().init_with_output(jax.random.key(0), jnp.zeros(shape, jnp.uint8)))
    assert {name: value.shape for name, value in out.items()} == {name: (shape[0], n) for name, n in FEATURES.items()}
    assert {value.dtype for value in out.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(("shape", "dtype"), [((1, 8, 8, 1), jnp.uint8), ((1, 8, 8, 3), jnp.float32)])
def test_other_pictures_are_named(shape, dtype):
    with pytest.raises(ValueError, match=r"uint8 RGB pictures \[B H W 3\], got (uint8|float32) \[1, 8, 8, [13]\]"):
        abstract_params(jnp.zeros(shape, dtype))


def lerp_at(line, position):
    """The line of pixels at a place between two of them, the last one repeated."""
    low = int(np.floor(position))
    part = np.float32(position) - np.float32(low)
    return line[low] + (line[min(low + 1, len(line) - 1)] - line[low]) * part


@pytest.mark.parametrize(("height", "width", "size"), [(4, 7, 11), (13, 5, 6), (1, 3, 5)])
def test_resize_pixel_by_pixel(height, width, size):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 2)).astype(np.float32)
    rows, columns = (np.float32(n / size) * np.arange(size, dtype=np.float32) for n in (height, width))
    wide = np.stack([lerp_at(picture.swapaxes(0, 1), x) for x in columns], axis=1)
    expected = np.stack([lerp_at(wide, y) for y in rows])
    np.testing.assert_allclose(inception.resize(jnp.asarray(picture)[None], size)[0], expected, rtol=1e-6)


def test_resize_of_a_ramp_ends_flat():
    """i -> i becomes j -> min(j n / size, n - 1): the corners at 0 coincide, the last pixel is repeated."""
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, None, :, None], (1, 2, 32, 1))
    expected = np.minimum(np.arange(299) * 32 / 299, 31)
    np.testing.assert_allclose(inception.resize(ramp)[0, 7, :, 0], expected, atol=1e-5)


def test_resize_does_not_smooth():
    """Half the size is every second pixel; the same size is the same picture."""
    x = jax.random.uniform(jax.random.key(0), (1, 598, 299, 3))
    np.testing.assert_array_equal(inception.resize(x), x[:, ::2])


def around(x, i, j):
    """The pixels of a picture [H W C] in the 3x3 around (i, j)."""
    return x[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].reshape(-1, x.shape[-1])


def test_pools_pixel_by_pixel():
    x = np.random.default_rng(0).standard_normal((1, 6, 9, 2)).astype(np.float32) - 3
    places = np.array([[around(x[0], i, j).mean(0) for j in range(9)] for i in range(6)])
    np.testing.assert_allclose(inception.mean_pool(jnp.asarray(x))[0], places, rtol=1e-5)
    places = np.array([[around(x[0], i, j).max(0) for j in range(9)] for i in range(6)])
    np.testing.assert_array_equal(inception.max_pool(jnp.asarray(x))[0], places)
    places = np.array([[around(x[0], i, j).max(0) for j in (1, 3, 5, 7)] for i in (1, 3)])
    np.testing.assert_array_equal(inception.halve(jnp.asarray(x))[0], places)


def test_normalisation_by_hand(shaken, run):
    """relu(scale (y - mean) / sqrt(variance + 0.001) + bias), at a small variance, where 0.001 shows."""
    unit = NormConv(Unit("unit", 5))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    params = shaken(unit, x) | {"variance": jnp.linspace(0.001, 0.1, 5)}
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    y = np.asarray(x, np.float64) @ p["kernel"][0, 0]
    expected = np.maximum(p["scale"] * (y - p["mean"]) / np.sqrt(p["variance"] + 0.001) + p["bias"], 0)
    np.testing.assert_allclose(run(unit, params, x), expected, rtol=1e-4, atol=1e-4)


def test_a_convolution_along_rows_is_not_one_along_columns(shaken, run):
    """(1, 7) reads seven columns of one row: a lit pixel lights its row."""
    unit = NormConv(Unit("unit", 1, (1, 7)))
    x = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4].set(1.0)
    params = shaken(unit, x) | {"kernel": jnp.ones((1, 7, 1, 1)), "mean": jnp.zeros(1), "bias": jnp.zeros(1)}
    lit = np.argwhere(np.asarray(run(unit, params | {"variance": jnp.ones(1)}, x))[0, :, :, 0])
    assert lit.tolist() == [[4, j] for j in range(1, 8)]


def test_a_block_joins_its_branches_and_the_pool_last(shaken, run):
    one, two, left, right = Unit("one", 2), Unit("two", 3), Unit("left", 4, (1, 3)), Unit("right", 5, (3, 1))
    branches = (((one,),), ((two,), (left, right)))
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 6))
    net = Mixed(Block("block", branches, "max", 7))
    params = {name: unit | {"variance": jnp.ones_like(unit["bias"])} for name, unit in shaken(net, x).items()}

    def unit_alone(unit, h):
        return run(NormConv(unit), params[unit.name], h)

    h = unit_alone(two, x)
    expected = (
        unit_alone(one, x),
        unit_alone(left, h),
        unit_alone(right, h),
        unit_alone(Unit("branch_pool", 7), inception.max_pool(x)),
    )
    out = run(net, params, x)
    assert out.shape == (1, 5, 5, 2 + 4 + 5 + 7)
    np.testing.assert_allclose(out, jnp.concatenate(expected, axis=-1), atol=1e-5)
    small = {"one": params["one"] | {"kernel": jnp.ones((3, 3, 6, 2))}}
    halved = run(Mixed(Block("block", (((Unit("one", 2, (3, 3), 2, "VALID"),),),), "halve")), small, x)
    np.testing.assert_array_equal(halved[..., 2:], inception.halve(x))
