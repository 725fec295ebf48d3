import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion.interpolate import normalise, slerp, slerp_latents, text_diff

slerp_jit, latents_jit, diff_jit = jax.jit(slerp), jax.jit(slerp_latents), jax.jit(text_diff)


def random_pair(*shape: int, seed: int = 0):
    return jax.random.normal(jax.random.key(seed), (2, *shape))


def angle(a, b) -> np.ndarray:
    """In float64."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return 2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))


def norm(x) -> np.ndarray:
    return np.linalg.norm(np.asarray(x, np.float64), axis=-1)


def reference(a, b, weight: float) -> np.ndarray:
    """The textbook's formula in float64, for vectors at an angle."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    theta = angle(a, b)[..., None]
    unit_a, unit_b = (x / norm(x)[..., None] for x in (a, b))
    direction = (np.sin((1 - weight) * theta) * unit_a + np.sin(weight * theta) * unit_b) / np.sin(theta)
    return ((1 - weight) * norm(a) + weight * norm(b))[..., None] * direction


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_textbook_and_the_ends(weight):
    a, b = random_pair(5, 16)
    np.testing.assert_allclose(slerp_jit(a, b, weight), reference(a, b, weight), atol=2e-6)
    np.testing.assert_allclose(slerp_jit(a, b, weight), slerp_jit(b, a, 1 - weight), atol=2e-6)


def test_in_the_plane_angle_and_norm_are_linear():
    start, span = 0.4, np.array([0.1, 1.5, 3.0])
    a = jnp.asarray(2 * np.stack([np.cos(start), np.sin(start)])[None].repeat(3, axis=0), jnp.float32)
    b = jnp.asarray(5 * np.stack([np.cos(start + span), np.sin(start + span)], axis=1), jnp.float32)
    for weight in (0.25, 0.7):
        end = start + weight * span
        expected = (2 + 3 * weight) * np.stack([np.cos(end), np.sin(end)], axis=1)
        np.testing.assert_allclose(slerp_jit(a, b, weight), expected, atol=3e-6)


def test_angles_add_up_and_parts_of_the_way_compose():
    a, b = random_pair(5, 16)
    part = slerp_jit(a, b, 0.3)
    np.testing.assert_allclose(angle(a, part), 0.3 * angle(a, b), atol=1e-6)
    np.testing.assert_allclose(angle(a, part) + angle(part, b), angle(a, b), atol=1e-6)
    np.testing.assert_allclose(slerp_jit(part, b, 0.5), slerp_jit(a, b, 0.65), atol=2e-6)


def test_a_rotation_of_both_rotates_the_result():
    """An angle for each element in place of each vector would not do so."""
    a, b = random_pair(5, 16)
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0], jnp.float32)
    np.testing.assert_allclose(slerp_jit(a @ rotation, b @ rotation, 0.4), slerp_jit(a, b, 0.4) @ rotation, atol=3e-6)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_nearly_parallel(gap):
    a, direction = random_pair(5, 16)
    b = a + gap * direction
    np.testing.assert_allclose(slerp_jit(a, b, 0.4), reference(a, b, 0.4), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
def test_nearly_opposite(gap):
    """The inputs' own rounding turns the great circle by about 1e-7 / gap."""
    a, direction = random_pair(5, 16)
    a, direction = normalise(a), normalise(direction)
    b = -a + gap * direction
    for weight in (0.0, 0.5, 1.0):
        ours = slerp_jit(a, b, weight)
        np.testing.assert_allclose(ours, reference(a, b, weight), atol=4e-7 / gap if weight == 0.5 else 1e-6)
        np.testing.assert_allclose(norm(ours), (1 - weight) + weight * norm(b), rtol=1e-6)


def test_parallel_opposite_and_zero():
    a = jnp.array([[3.0, 0.0, 4.0], [0.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(slerp_jit(a, 3 * a, 0.25), 1.5 * a, atol=1e-6)
    np.testing.assert_allclose(slerp_jit(a, jnp.zeros_like(a), 0.25), 0.75 * a, atol=1e-6)
    np.testing.assert_allclose(slerp_jit(jnp.zeros_like(a), a, 0.25), 0.25 * a, atol=1e-6)
    np.testing.assert_array_equal(slerp_jit(jnp.zeros_like(a), jnp.zeros_like(a), 0.25), jnp.zeros_like(a))
    for weight in (0.0, 0.2, 0.5, 1.0):
        ours = slerp_jit(a, -a, weight)
        np.testing.assert_allclose(norm(ours), norm(a), rtol=1e-6)
        np.testing.assert_allclose(angle(a, ours), weight * np.pi, atol=1e-6)


def test_latents_have_one_angle_an_example():
    a, b = random_pair(5, 4, 2, 2)
    expected = slerp_jit(a.reshape(5, 16), b.reshape(5, 16), 0.3).reshape(a.shape)
    np.testing.assert_allclose(latents_jit(a, b, 0.3), expected, atol=1e-6)


def test_noise_stays_noise():
    """Between two latents of N(0, I) lies one of the same norm, up to chance."""
    a, b = random_pair(1, 32, 32, 3)
    assert float(latents_jit(a, b, 0.5).std()) == pytest.approx(1, abs=0.03)


def test_text_diff_turns_the_image_towards_the_difference():
    text_from, text_to, image = 3 * jax.random.normal(jax.random.key(1), (3, 4, 16))
    difference = normalise(normalise(text_to) - normalise(text_from))
    turned = diff_jit(text_from, text_to, image, 0.3)
    np.testing.assert_allclose(norm(turned), norm(image), rtol=1e-6)
    np.testing.assert_allclose(angle(image, turned), 0.3 * angle(image, difference), atol=1e-6)
    np.testing.assert_allclose(angle(turned, difference), 0.7 * angle(image, difference), atol=1e-6)
    np.testing.assert_allclose(diff_jit(text_from, text_to, image, 0.0), image, atol=2e-6)
    np.testing.assert_allclose(normalise(diff_jit(text_from, text_to, image, 1.0)), difference, atol=1e-6)
    np.testing.assert_allclose(diff_jit(5 * text_from, text_to, image, 0.3), turned, atol=1e-5)


def test_equal_texts_change_nothing():
    text, image = random_pair(4, 16)
    np.testing.assert_allclose(diff_jit(text, text, image, 0.5), image, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalise_at_any_scale(scale):
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]]) * scale
    np.testing.assert_allclose(normalise(x), [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)
