import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from flaxgen.diffusion import degrade, schedules
from flaxgen.diffusion.degrade import Severity

COSINE = schedules.cosine(0)
NONE = Severity(sigma=0.0, scale=1.0, noise=0.0, quality=100.0)
SEEDS = jnp.arange(64)
gaussian_blur = jax.jit(degrade.gaussian_blur, static_argnums=2)
elliptic_blur = jax.jit(degrade.elliptic_blur, static_argnums=3)
resize_through = jax.jit(degrade.resize_through)


@jax.jit
def bsr(image, severity):
    """The picture degraded by 64 keys."""
    return jax.vmap(lambda seed: degrade.bsr(image, jax.random.key(seed), severity))(SEEDS)


def picture(height: int = 24, width: int = 30, channels: int = 3):
    return jax.random.uniform(jax.random.key(0), (height, width, channels), minval=-1, maxval=1)


def smooth(height: int = 24, width: int = 30):
    y, x = np.mgrid[:height, :width]
    return jnp.asarray(0.8 * np.stack([np.sin(x / 6), np.cos(y / 5), np.sin((x + y) / 8)], axis=-1), jnp.float32)


def pillow_resize(image, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """In float32, one channel at a time; antialiased going down."""
    channels = [Image.fromarray(np.asarray(c)).resize(size[::-1], method) for c in jnp.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


@pytest.mark.parametrize("sigma", [0.3, 0.6, 1.7])
@pytest.mark.parametrize("radius", [1, 5])
def test_blurs_against_scipy(sigma, radius):
    image = picture()
    expected = scipy.ndimage.gaussian_filter(np.asarray(image, float), sigma, mode="mirror", radius=radius, axes=(0, 1))
    np.testing.assert_allclose(gaussian_blur(image, sigma, radius), expected, atol=1e-5)
    np.testing.assert_allclose(elliptic_blur(image, jnp.full(2, sigma), 0.7, radius), expected, atol=1e-5)


def test_no_blur_is_the_identity():
    image = picture()
    np.testing.assert_array_equal(gaussian_blur(image, 0.0, 5), image)
    np.testing.assert_allclose(elliptic_blur(image, jnp.zeros(2), 0.7, 5), image, atol=2e-6)


def test_an_elliptic_blur_by_its_covariance():
    image, sigmas, angle = picture(), np.array([2.0, 0.7]), 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag(sigmas**2) @ turn.T)
    y, x = np.mgrid[-5:6, -5:6]
    places = np.stack([x, y], axis=-1)
    kernel = np.exp(-np.einsum("...i,ij,...j", places, inverse, places) / 2)
    expected = [scipy.ndimage.convolve(c, kernel / kernel.sum(), mode="mirror") for c in np.moveaxis(image, -1, 0)]
    ours = elliptic_blur(image, jnp.asarray(sigmas, jnp.float32), angle, 5)
    np.testing.assert_allclose(ours, np.stack(expected, axis=-1), atol=1e-5)


def test_downsample_takes_means_and_knows_crops():
    image = picture(12, 18)
    small = degrade.downsample(image, 3)
    expected = np.asarray(image)[3:6, 15:18].mean(axis=(0, 1))
    np.testing.assert_allclose(small[1, 5], expected, atol=1e-6)
    np.testing.assert_allclose(degrade.downsample(image[6:12, 3:15], 3), small[2:4, 1:5], atol=1e-6)
    with pytest.raises(ValueError, match="12x18 has no 4 times smaller one"):
        degrade.downsample(image, 4)


def test_upsample_is_pillows_bicubic():
    image = picture(6, 9)
    np.testing.assert_allclose(
        degrade.upsample(image, 3), pillow_resize(image, (18, 27), Image.Resampling.BICUBIC), atol=1e-5
    )


@pytest.mark.parametrize("size", [(12, 15), (17, 22), (24, 30), (5, 7)])
def test_resizing_through_a_smaller_size(size):
    """Against Pillow for all kernels, against JAX for those it has; (12, 15) and the box put pixels on ties."""
    image, traced = picture(), jnp.array(size)
    methods = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    for down, up in itertools.product(range(3), range(3)):
        expected = pillow_resize(pillow_resize(image, size, methods[down]), (24, 30), methods[up])
        np.testing.assert_allclose(resize_through(image, traced, down, up), expected, atol=2e-5)
    for kernel, method in ((1, "linear"), (2, "cubic")):
        expected = jax.image.resize(jax.image.resize(image, (*size, 3), method), image.shape, method)
        np.testing.assert_allclose(resize_through(image, traced, kernel, kernel), expected, atol=1e-5)


def test_half_size_by_boxes_is_means():
    image = picture()
    expected = jnp.repeat(jnp.repeat(degrade.downsample(image, 2), 2, axis=0), 2, axis=1)
    np.testing.assert_allclose(resize_through(image, jnp.array([12, 15]), 0, 0), expected, atol=1e-6)


def test_noise_augmentation_is_the_forward_process():
    image = jnp.full((64, 64, 3), 0.7)
    noised = degrade.noise_augment(COSINE, image, jax.random.key(0), 0.4)
    alpha, sigma = COSINE(0.4)
    assert float(noised.mean()) == pytest.approx(0.7 * float(alpha), abs=4 * float(sigma) / image.size**0.5)
    assert float(noised.std()) == pytest.approx(float(sigma), rel=0.03)
    np.testing.assert_allclose(degrade.noise_augment(COSINE, image, jax.random.key(0), 0.0), image, atol=1e-6)


def test_some_pictures_are_blurred_and_the_others_left():
    image, count = picture(), 200
    keys = jax.random.split(jax.random.key(0), count)
    pictures = jax.jit(jax.vmap(lambda key: degrade.blurred(image, key, probability=0.3)))(keys)
    changed = np.asarray((pictures != image[None]).any(axis=(1, 2, 3)))
    assert changed.mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / count) ** 0.5)
    np.testing.assert_allclose(pictures[changed.argmax()], gaussian_blur(image, 0.6, 1), atol=1e-6)


def test_blurs_of_a_range_of_sigmas():
    image = picture()
    blur = jax.jit(jax.vmap(lambda key: degrade.blurred(image, key, probability=1.0, sigma=(0.4, 1.0), radius=3)))
    std = blur(jax.random.split(jax.random.key(0), 50)).std(axis=(1, 2, 3))
    most, least = (float(gaussian_blur(image, sigma, 3).std()) for sigma in (0.4, 1.0))
    assert least < float(std.min()) < least + 0.1 * (most - least)
    assert most - 0.2 * (most - least) < float(std.max()) < most


def test_every_order_occurs_about_as_often():
    steps = (lambda x: 0.5 * x, lambda x: x - 0.3, lambda x: -x, lambda x: x**2)
    x = jnp.full((1, 1, 1), 0.5)

    def composed(order):
        y = 0.5
        for i in order:
            y = float(steps[i](y))
        return round(y, 4)

    count = 2400
    keys = jax.random.split(jax.random.key(0), count)
    made = jax.jit(jax.vmap(lambda key: degrade.in_random_order(steps, x, key)))(keys)
    values, seen = np.unique(np.round(np.asarray(made, float), 4), return_counts=True)
    expected = {}
    for order in itertools.permutations(range(4)):
        expected[composed(order)] = expected.get(composed(order), 0) + count / 24
    assert len(expected) > 12
    np.testing.assert_allclose(values, sorted(expected), atol=1e-4)
    expected = np.array([expected[value] for value in sorted(expected)])
    assert ((seen - expected) ** 2 / expected).sum() < 3 * len(expected)


def test_steps_are_clipped_to_the_range():
    made = degrade.in_random_order((lambda x: 3 * x,), picture(), jax.random.key(0))
    assert float(made.max()) == 1
    assert float(made.min()) == -1


def test_bsr_is_a_function_of_the_key_alone():
    """By vmap or one by one; rounding may send single coefficients of JPEG to the other side."""
    image = smooth()
    together = bsr(image, degrade.MODERATE)
    single = jax.jit(lambda seed: degrade.bsr(image, jax.random.key(seed)))
    for seed in range(4):
        assert float(jnp.abs(together[seed] - single(seed)).mean()) < 1e-3
    np.testing.assert_array_equal(bsr(image, degrade.MODERATE), together)
    apart = [float(jnp.abs(a - b).mean()) for a, b in itertools.combinations(together[:6], 2)]
    assert min(apart) > 5e-3
    assert float(jnp.abs(together).max()) <= 1


def test_bsr_of_no_severity_only_rounds():
    made = bsr(smooth(), NONE)
    assert made.shape == (64, *smooth().shape)
    assert float(jnp.abs(made - smooth()[None]).max()) < 6 / 127.5


@pytest.mark.parametrize("severity", [NONE._replace(sigma=3.0), NONE._replace(scale=0.2)])
def test_bsr_blurs_and_resizes(severity):
    """Of white noise a part of the variance is left, from nearly all to little."""
    left = np.asarray(bsr(picture(), severity).var(axis=(1, 2, 3)) / picture().var())
    assert left.max() < 1.01
    assert left.max() - left.min() > 0.2
    assert np.median(left) < 0.5


def test_bsr_noise_is_grey_or_in_colour():
    made = np.asarray(bsr(jnp.zeros((24, 30, 3)), NONE._replace(noise=0.3)))
    std, colour = made.std(axis=(1, 2, 3)), (made[..., 0] - made[..., 1]).std(axis=(1, 2))
    assert std.max() < 0.32
    assert std.mean() == pytest.approx(0.15, abs=4 * 0.3 / 12**0.5 / 8)
    share = colour[std > 0.05] / std[std > 0.05]
    grey = share < 0.1
    assert grey.mean() == pytest.approx(0.5, abs=4 * 0.5 / len(grey) ** 0.5)
    np.testing.assert_allclose(share[~grey], 2**0.5, rtol=0.1)


def test_bsr_compresses():
    loss = [
        float(jnp.abs(bsr(picture(), NONE._replace(quality=q)) - picture()[None]).mean()) for q in (100.0, 95.0, 5.0)
    ]
    assert loss[0] < loss[1] < loss[2]


def test_strengths_are_traced():
    bsr(picture(), NONE)
    compiled = bsr._cache_size()
    bsr(picture(), Severity(sigma=0.2, scale=0.9, noise=0.01, quality=80.0))
    assert bsr._cache_size() == compiled
