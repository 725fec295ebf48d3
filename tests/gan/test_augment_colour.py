import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.gan.augment import colour

IMAGE = jax.random.uniform(jax.random.key(0), (5, 6, 3), minval=-1, maxval=1)
STEPS = {
    "brightness": (colour.brightness, 0.3, -0.3),
    "contrast": (colour.scale, 1.7, 1 / 1.7),
    "luma flip": (colour.luma_flip, True, True),
    "hue": (colour.hue, 0.8, -0.8),
    "saturation": (colour.saturation, 2.5, 1 / 2.5),
}


def keys():
    """The same ones every time, and each time fresh."""
    return jax.random.split(jax.random.key(1), 8192)


def grey(image):
    return np.asarray(image).mean(axis=-1)


def recolour(step, strength, image=IMAGE):
    return colour.recolour(image, step(jnp.asarray(strength)))


@pytest.mark.parametrize("name", STEPS)
def test_each_has_its_inverse(name):
    step, there, back = STEPS[name]
    changed = recolour(step, there)
    assert float(jnp.abs(changed - IMAGE).max()) > 0.1
    np.testing.assert_allclose(recolour(step, back, changed), IMAGE, atol=1e-6)


def test_brightness_and_contrast():
    np.testing.assert_allclose(recolour(colour.brightness, 0.3), IMAGE + 0.3, atol=1e-6)
    np.testing.assert_allclose(recolour(colour.scale, 1.7), 1.7 * IMAGE, atol=1e-6)


def test_a_third_of_the_circle_of_hues_permutes_the_channels():
    np.testing.assert_allclose(recolour(colour.hue, 2 * np.pi / 3), jnp.roll(IMAGE, 1, axis=-1), atol=1e-6)


def test_luma_flip_turns_greys_around_and_keeps_the_rest():
    flipped = recolour(colour.luma_flip, True)
    np.testing.assert_allclose(grey(flipped), -grey(IMAGE), atol=1e-6)
    np.testing.assert_allclose(flipped - grey(flipped)[..., None], IMAGE - grey(IMAGE)[..., None], atol=1e-6)


def test_saturation_moves_away_from_grey():
    expected = grey(IMAGE)[..., None] + 2.5 * (IMAGE - grey(IMAGE)[..., None])
    np.testing.assert_allclose(recolour(colour.saturation, 2.5), expected, atol=1e-6)


def test_what_is_drawn():
    """Nothing at 0; at 1, lightness has no drift and distances from grey none in their logarithm."""
    draw = jax.jit(jax.vmap(colour.draw_colour, (0, None)))
    matrix, drawn = draw(keys(), jnp.float32(0.0))
    assert not drawn.any()
    np.testing.assert_allclose(matrix, np.broadcast_to(np.eye(4), matrix.shape), atol=1e-6)
    matrix, drawn = draw(keys(), jnp.float32(1.0))
    assert bool(drawn.all())
    matrix = np.asarray(matrix, float)
    ones = np.array([1, 1, 1]) / np.sqrt(3)
    lightness, chroma = matrix[:, :3, :3] @ ones @ ones, matrix[:, :3, :3] @ np.array([1, -1, 0]) / np.sqrt(2)
    assert np.mean(lightness < 0) == pytest.approx(0.5, abs=0.03)
    assert np.log2(np.abs(lightness)).mean() == pytest.approx(0, abs=0.03)
    assert np.log2(np.abs(lightness)).std() == pytest.approx(0.5, rel=0.05)
    assert np.log2(np.linalg.norm(chroma, axis=1)).std() == pytest.approx(np.hypot(0.5, 1), rel=0.05)
    assert np.abs(chroma.mean(axis=0)).max() < 0.1
    level = matrix[:, :3, 3] @ ones / (lightness * np.sqrt(3))
    assert np.abs(level.mean()) < 0.02
    assert level.std() == pytest.approx(0.2, rel=0.05)


def test_how_often_there_is_colour():
    _, drawn = jax.jit(jax.vmap(colour.draw_colour, (0, None)))(keys(), jnp.float32(0.3))
    assert float(drawn.mean()) == pytest.approx(1 - 0.7**5, abs=0.02)
