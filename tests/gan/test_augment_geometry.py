import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import geometry
from flaxgen.gan.augment.geometry import compose, quarter_turns, rotation, scaling, translation

SIDE = 24
PICTURE = jax.random.uniform(jax.random.key(0), (SIDE, SIDE, 3), minval=-1, maxval=1)
blit = jax.jit(geometry.blit)
resample = jax.jit(geometry.resample)


def turn(degrees: float):
    return rotation(jnp.asarray(np.deg2rad(degrees), jnp.float32))


def shift(x: float, y: float):
    return translation(jnp.array([x, y], jnp.float32))


def zoom(x: float, y: float):
    return scaling(jnp.asarray(x), jnp.asarray(y))


IDENTITY, FLIP = np.eye(3), zoom(-1.0, 1.0)
MAPS = {
    "flip": FLIP,
    "quarter turn": quarter_turns(jnp.asarray(1)),
    "whole shift": shift(2.0, -3.0),
    "scale": zoom(1.25, 1.25),
    "turn": turn(33),
    "stretch": zoom(1.2, 1 / 1.2),
    "shift": shift(1.3, -2.6),
    "all": compose(FLIP, shift(1.0, 0.0), zoom(0.9, 0.9), turn(70), zoom(0.85, 1 / 0.85), turn(-20), shift(0.3, -0.8)),
}


def hill(inverse=IDENTITY, width: float = 3.0) -> np.ndarray:
    """A smooth picture, moved: what is at (x, y) from the centre is the hill's height at the inverse's (x, y); beyond
    the picture there is its mirror image."""
    edge = (SIDE - 1) / 2
    x, y = np.broadcast_arrays(np.linspace(-edge, edge, SIDE)[None], np.linspace(-edge, edge, SIDE)[:, None])
    u, v, _ = np.tensordot(np.asarray(inverse, float), np.stack([x, y, np.ones_like(x)]), 1)
    u, v = (np.where(np.abs(w) > edge, np.sign(w) * 2 * edge - w, w) for w in (u, v))
    return np.exp(-(((u - 1.5) / width) ** 2 + ((v + 1) / (0.7 * width)) ** 2) / 2)[..., None]


@pytest.mark.parametrize("turns", range(4))
def test_a_quarter_turn_moves_pixels(turns):
    np.testing.assert_array_equal(blit(PICTURE, quarter_turns(jnp.asarray(turns))), np.rot90(PICTURE, turns))


def test_a_flip_and_a_whole_shift_move_pixels():
    np.testing.assert_array_equal(blit(PICTURE, FLIP), PICTURE[:, ::-1])
    padded = np.pad(PICTURE, ((5, 5), (5, 5), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(blit(PICTURE, shift(2.0, -3.0)), padded[2 : SIDE + 2, 7 : SIDE + 7])


def test_blits_undo_one_another():
    """First A, then B is read through A^-1 B^-1; its inverse takes all pixels back."""
    there = compose(FLIP, quarter_turns(jnp.asarray(3)))
    back = compose(quarter_turns(jnp.asarray(1)), FLIP)
    np.testing.assert_array_equal(blit(blit(PICTURE, FLIP), quarter_turns(jnp.asarray(3))), blit(PICTURE, there))
    np.testing.assert_array_equal(blit(blit(PICTURE, there), back), PICTURE)


def test_the_wavelet_is_orthonormal():
    taps = geometry.SYM6
    products = [taps[2 * n :] @ taps[: len(taps) - 2 * n] for n in range(len(taps) // 2)]
    np.testing.assert_allclose(products, [1, 0, 0, 0, 0, 0], atol=1e-10)


def test_resampling_by_the_identity():
    """Up to the borders: finer by an orthonormal wavelet and back is nothing."""
    np.testing.assert_allclose(resample(PICTURE[None], jnp.eye(3)[None])[0], PICTURE, atol=2e-5)


@pytest.mark.parametrize("name", MAPS)
def test_resampling_against_the_moved_function(name):
    """A hill whose slope is 0.3 a pixel: 0.02 would be 0.07 pixels off."""
    moved = resample(jnp.asarray(hill()[None], jnp.float32), MAPS[name][None])[0]
    np.testing.assert_allclose(moved, hill(MAPS[name]), atol=0.02)


@pytest.mark.parametrize("name", MAPS)
def test_resampling_and_back(name):
    """By the known inverse of the matrix."""
    inverse = jnp.asarray(np.linalg.inv(np.asarray(MAPS[name], float)), jnp.float32)
    image = jnp.asarray(hill(), jnp.float32)
    back = resample(resample(image[None], MAPS[name][None]), inverse[None])[0]
    on_the_hill = np.asarray(image) > 0.1
    np.testing.assert_allclose(back[on_the_hill], image[on_the_hill], atol=0.04)


def test_borders_are_mirrored():
    """A shift by more than half the picture shows its mirror image, again and again."""
    image = hill(width=4.0)
    wide = np.pad(image, ((0, 0), (60, 60), (0, 0)), mode="reflect")
    for pixels in (14, -17, 50):
        moved = resample(jnp.asarray(image[None], jnp.float32), shift(pixels, 0.0)[None])[0]
        np.testing.assert_allclose(moved, wide[:, 60 + pixels : 60 + pixels + SIDE], atol=0.02)


def test_resampling_does_not_move_the_centre():
    """A round hill at the centre stays there, however it is turned and flipped: the filter's delay is not seen."""
    along = np.arange(SIDE) - (SIDE - 1) / 2
    image = jnp.asarray(np.exp(-(along[:, None] ** 2 + along[None] ** 2) / 8), jnp.float32)[..., None]
    maps = jnp.stack([compose(side, turn(angle)) for side in (jnp.eye(3), FLIP) for angle in range(0, 360, 45)])
    moved = np.asarray(resample(jnp.broadcast_to(image, (16, *image.shape)), maps), float)[..., 0]
    for axis in (1, 2):
        places = moved.sum(axis=3 - axis) @ along / moved.sum(axis=(1, 2))
        np.testing.assert_allclose(places, np.zeros(16), atol=0.01)


def draw(probability, count=20_000):
    keys = jax.random.split(jax.random.key(7), count)
    return jax.jit(jax.vmap(lambda key, p: geometry.draw_affine(key, p, SIDE), (0, None)))(keys, probability)


def test_the_geometric_group_has_no_drift():
    """Over keys, places keep their mean, areas and angles theirs; within five standard errors."""
    inverse, drawn = draw(jnp.float32(1.0))
    assert bool(drawn.all())
    forward = np.linalg.inv(np.asarray(inverse, float))
    area = np.log2(np.linalg.det(forward)) / 2
    for moved, std in ((forward[:, 0, 2], 3.0), (forward[:, 1, 2], 3.0), (area, 0.2)):
        assert abs(moved.mean()) < 5 * std / np.sqrt(len(moved))
        assert moved.std() == pytest.approx(std, rel=0.03)
    linear = forward[:, :2, :2]
    assert np.abs(linear.mean(axis=0)).max() < 5 / np.sqrt(len(linear))
    stretch = np.log2(np.linalg.svd(linear, compute_uv=False)) - area[:, None]
    assert np.sqrt((stretch**2).mean()) == pytest.approx(0.2, rel=0.03)


def test_how_often_there_is_geometry():
    """Four independent kinds; both turns together are one of them."""
    _, drawn = draw(jnp.float32(0.3))
    assert float(drawn.mean()) == pytest.approx(1 - 0.7**4, abs=0.015)
    inverse, drawn = draw(jnp.float32(0.0))
    assert not drawn.any()
    np.testing.assert_array_equal(inverse, np.broadcast_to(np.eye(3), inverse.shape))


def test_the_whole_moves_that_are_drawn():
    """Turns and flips all equally often, shifts by up to an eighth, in whole pixels."""
    keys = jax.random.split(jax.random.key(3), 4096)
    inverse = np.asarray(jax.jit(jax.vmap(lambda key: geometry.draw_blit(key, 1.0, SIDE)))(keys))
    kinds, counts = np.unique(inverse[:, :2, :2].reshape(-1, 4), axis=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 400
    np.testing.assert_array_equal(inverse, np.round(inverse))
    assert np.abs(inverse[:, :2, 2]).max() == SIDE // 8
    assert np.abs(inverse[:, :2, 2].mean(axis=0)).max() < 0.15
