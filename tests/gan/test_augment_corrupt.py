import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import corrupt

SIDE = 16
IMAGE = jnp.ones((SIDE, SIDE, 1))
add_noise = jax.jit(jax.vmap(corrupt.add_noise, (None, 0, None)))
cut_out = jax.jit(jax.vmap(corrupt.cut_out, (None, 0, None)))


def keys():
    """The same ones every time, and each time fresh."""
    return jax.random.split(jax.random.key(4), 4096)


def test_noise():
    """White, of a standard deviation that is itself |N(0, 0.1^2)|."""
    noise = np.asarray(add_noise(IMAGE, keys(), 1.0)) - 1
    stds = noise.std(axis=(1, 2, 3))
    assert np.abs(noise.mean()) < 1e-3
    assert np.sqrt((stds**2).mean()) == pytest.approx(0.1, rel=0.05)
    assert stds.mean() == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.05)


def test_the_hole():
    """Half the sides around a place anywhere, cut at the borders: 7/16 of each side in the mean."""
    cut = np.asarray(cut_out(IMAGE, keys(), 1.0))[..., 0] == 0
    sides = np.stack([cut.any(axis=2).sum(axis=1), cut.any(axis=1).sum(axis=1)])
    np.testing.assert_array_equal(cut.sum(axis=(1, 2)), sides.prod(axis=0))
    assert sides.max() == SIDE // 2
    assert sides.min() == SIDE // 4
    np.testing.assert_allclose(sides.mean(axis=1) / SIDE, [7 / 16, 7 / 16], atol=0.005)


@pytest.mark.parametrize("corruption", [add_noise, cut_out])
def test_how_often(corruption):
    changed = np.any(np.asarray(corruption(IMAGE, keys(), 0.3)) != 1, axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.3, abs=0.04)
