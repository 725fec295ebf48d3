import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import POLICIES, diff, diff_augment

COUNT, SHAPE = 512, (16, 24, 3)
IMAGE = jax.random.uniform(jax.random.key(0), SHAPE, minval=-1, maxval=1)


def keys(start=0, stop=COUNT):
    """The same ones every time, and each time fresh."""
    return jax.random.split(jax.random.key(1), COUNT)[start:stop]


def many(step):
    return np.asarray(jax.jit(jax.vmap(step, (None, 0)))(IMAGE, keys()))


def test_brightness_is_a_constant():
    level = many(diff.brighten) - np.asarray(IMAGE)
    np.testing.assert_allclose(np.ptp(level, axis=(1, 2, 3)), np.zeros(COUNT), atol=1e-6)
    assert level.min() == pytest.approx(-0.5, abs=0.02)
    assert level.max() == pytest.approx(0.5, abs=0.02)


def test_saturation_keeps_greys_and_contrast_the_mean():
    image = np.asarray(IMAGE)
    for changed, axes, most in ((many(diff.saturate), 3, (0, 2)), (many(diff.contrast), (1, 2, 3), (0.5, 1.5))):
        mean = changed.mean(axis=axes, keepdims=True)
        own = image[None].mean(axis=axes, keepdims=True)
        np.testing.assert_allclose(mean, np.broadcast_to(own, mean.shape), atol=1e-6)
        factor = (changed - mean).std(axis=(1, 2, 3)) / (image[None] - own).std()
        np.testing.assert_allclose(changed - own, factor[:, None, None, None] * (image[None] - own), atol=1e-5)
        np.testing.assert_allclose((factor.min(), factor.max()), most, atol=0.03)


def test_shifts_are_whole_and_bring_zeros():
    padded = np.pad(IMAGE, ((2, 2), (3, 3), (0, 0)))
    views = {(y, x): padded[y : y + 16, x : x + 24].tobytes() for y in range(5) for x in range(7)}
    assert {shifted.tobytes() for shifted in many(diff.shift)} == set(views.values())


def test_the_hole_is_half_as_wide():
    """Its centre is on any pixel, or one further: mean widths from the same count by hand."""
    hole = np.all(many(diff.cut_out) == 0, axis=3)
    for axis, size in ((1, 16), (2, 24)):
        widths = hole.any(axis=3 - axis).sum(axis=1)
        possible = [min(c + size // 4, size) - max(c - size // 4, 0) for c in range(size + 1)]
        assert set(widths) == set(possible)
        assert widths.mean() == pytest.approx(np.mean(possible), abs=0.5)
    np.testing.assert_array_equal(hole.sum(axis=(1, 2)), hole.any(axis=1).sum(axis=1) * hole.any(axis=2).sum(axis=1))


def test_policies():
    images = jnp.broadcast_to(IMAGE, (4, *SHAPE))
    np.testing.assert_array_equal(diff_augment("", images, keys(stop=4)), images)
    augment = jax.jit(lambda images, keys: diff_augment(",".join(POLICIES), images, keys))
    np.testing.assert_allclose(augment(images[:1], keys(2, 3))[0], augment(images, keys(stop=4))[2], atol=1e-6)
    gradient = jax.jit(jax.grad(lambda images, keys: jnp.sum(augment(images, keys) ** 2)))(images, keys(stop=4))
    assert np.isfinite(gradient).all()
    assert bool(jnp.all(jnp.any(gradient != 0, axis=(1, 2, 3))))
    with pytest.raises(ValueError, match="'colour' is not one of color, translation, cutout"):
        diff_augment("colour,cutout", images, keys(stop=4))
