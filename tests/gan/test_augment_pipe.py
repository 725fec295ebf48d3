import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import PIPES, Pipe, make_augment
from flaxgen.parallel import example_keys

SHAPE = (16, 16, 3)
IMAGES = jax.random.uniform(jax.random.key(0), (8, *SHAPE), minval=-1, maxval=1)


def keys():
    """The same ones every time, and each time fresh."""
    return example_keys(jax.random.key(1), 8)


@functools.cache
def make(name: str):
    return jax.jit(make_augment(PIPES[name], SHAPE))


def test_nothing_happens_at_zero():
    """Bit for bit, with -0 too."""
    images = IMAGES.at[0, 0].set(-0.0)
    out = np.asarray(make("bgcfnc")(images, jnp.float32(0), keys()))
    np.testing.assert_array_equal(out.view(np.int32), np.asarray(images).view(np.int32))


@pytest.mark.parametrize("name", ["blit", "geom", "color", "filter", "noise", "cutout"])
def test_every_group_does_something_at_one(name):
    changed = jnp.any(make(name)(IMAGES, jnp.float32(1), keys()) != IMAGES, axis=(1, 2, 3))
    assert int(changed.sum()) >= 7  # a blit may draw no move


def test_a_picture_depends_on_its_own_key_alone():
    """However the batch is split over calls or devices, and whatever is beside it."""
    whole = make("bgcfnc")(IMAGES, jnp.float32(0.7), keys())
    over_devices = jax.pmap(make_augment(PIPES["bgcfnc"], SHAPE), in_axes=(0, None, 0))
    split = over_devices(IMAGES.reshape(4, 2, *SHAPE), jnp.float32(0.7), keys().reshape(4, 2))
    np.testing.assert_allclose(split.reshape(whole.shape), whole, atol=1e-5)


def test_groups_draw_whatever_others_there_are():
    """With whole moves and colours, the colours are those of colours alone."""
    both = jax.jit(make_augment(Pipe(blit=1.0, color=1.0), SHAPE))(IMAGES, jnp.float32(1), keys())
    moved = make("blit")(IMAGES, jnp.float32(1), keys())
    np.testing.assert_allclose(both, make("color")(moved, jnp.float32(1), keys()), atol=1e-5)


def test_gradients_flow():
    """All of it is affine in the pictures: what the gradient says of a step holds for a long one, and it is the
    transpose of the step."""

    def augment(images):
        return make("bgcfnc")(images, jnp.float32(0.9), keys())

    step, direction = (jax.random.normal(jax.random.key(i), IMAGES.shape) for i in (2, 3))
    start, pull = jax.vjp(augment, IMAGES)
    (pulled,) = pull(direction)
    expected = jnp.sum((augment(IMAGES + step) - start) * direction)
    np.testing.assert_allclose(jnp.sum(pulled * step), expected, rtol=1e-3)
    assert bool(jnp.all(jnp.any(pulled != 0, axis=(1, 2, 3))))


def test_a_factor_of_p():
    """Half of p = 1 is what p = 0.5 is, key by key."""
    half = jax.jit(make_augment(Pipe(cutout=0.5), SHAPE))(IMAGES, jnp.float32(1), keys())
    np.testing.assert_array_equal(half, make("cutout")(IMAGES, jnp.float32(0.5), keys()))


def test_bad_input():
    with pytest.raises(ValueError, match="ADA on non-RGB: color takes 3 channels, these pictures have 1; use pipe bg"):
        make_augment(PIPES["bgc"], (16, 16, 1))
    with pytest.raises(ValueError, match="takes square ones: these are 16x24"):
        make_augment(PIPES["bg"], (16, 24, 3))
    with pytest.raises(ValueError, match=r"geom=1.5: expected a factor of p in \[0, 1\]"):
        Pipe(geom=1.5)
    with pytest.raises(ValueError, match=r"shape \(8, 8, 3\) came to an augmentation made for \(16, 16, 3\)"):
        make_augment(PIPES["bg"], SHAPE)(IMAGES[:, :8, :8], 0.5, keys())


def test_grey_pictures_can_be_moved():
    images = jax.jit(make_augment(PIPES["blit"], (16, 16, 1)))(IMAGES[..., :1], jnp.float32(1), keys())
    np.testing.assert_array_equal(images, make("blit")(IMAGES, jnp.float32(1), keys())[..., :1])
