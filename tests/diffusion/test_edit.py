import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from flaxgen.diffusion import edit, schedules, times
from flaxgen.diffusion.samplers import SAMPLERS, ancestral, ddim, sample
from flaxgen.types import Denoised

COSINE = schedules.cosine(0)
MEAN, STD = 0.3, 0.5
PREDICT = oracles.gaussian_denoiser(COSINE, MEAN, STD)
MASK = jnp.zeros((1, 4, 4, 1)).at[:, :2].set(1.0)


@pytest.mark.parametrize(("name", "resamples"), [("ddpm", 1), ("unipc", 3)])
def test_the_known_part_is_kept_to_the_bit_and_the_rest_drawn(name, resamples):
    """By vmap with one key an example, as pictures are drawn."""
    known, x = jax.random.normal(jax.random.key(0), (2, 3, 1, 4, 4, 2))

    def draw(known, x, seed):
        sampler = edit.inpaint(SAMPLERS[name](COSINE), COSINE, known, MASK, resamples=resamples)
        return sample(sampler, PREDICT, x, times.trailing(8, 0), jax.random.key(seed))

    drawn = jax.jit(jax.vmap(draw))(known, x, jnp.arange(3))
    np.testing.assert_array_equal(drawn[:, :, :2], known[:, :, :2])
    assert (drawn[:, :, 2:] != known[:, :, 2:]).all()
    assert (jnp.abs(drawn[:, :, 2:] - MEAN) < 6 * STD).all()


def pair_denoiser(x, t):
    """E[x0 | x_t] where all pixels of an image are one N(0, 1) number."""
    alpha, sigma = COSINE(t)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return Denoised(jnp.broadcast_to(mean * alpha / (alpha**2 + sigma**2 / x[0].size), x.shape))


def test_resampling_makes_the_new_part_fit_the_known():
    """[Lugmayr22, sec. 4.2]: the exact answer is the number that the known half shows."""
    known = jnp.full((64, 2, 2, 1), 1.5)
    mask = jnp.zeros((1, 2, 2, 1)).at[:, 0].set(1.0)
    x = jax.random.normal(jax.random.key(1), known.shape)

    def misfit(resamples):
        sampler = edit.inpaint(ancestral(COSINE), COSINE, known, mask, resamples=resamples)
        drawn = jax.jit(lambda key: sample(sampler, pair_denoiser, x, times.trailing(20, 0), key))(jax.random.key(2))
        return float(jnp.abs(drawn[:, 1] - 1.5).mean())

    once, often = misfit(1), misfit(8)
    assert often < 0.6 * once


CORRELATION = 0.82**0.5
SHOWN = jnp.full((3000, 1, 2, 1), 1.5)
FIRST = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)


def correlated_denoiser(x, t):
    """E[x0 | x_t] of two pixels of variance 1 and that correlation, by their sum and their difference."""
    alpha, sigma = COSINE(t)
    half_sum = x.mean(axis=2, keepdims=True)
    gains = [alpha * var / (alpha**2 * var + sigma**2) for var in (1 + CORRELATION, 1 - CORRELATION)]
    return Denoised(gains[0] * half_sum + gains[1] * (x - half_sum))


def inpaint_second(name, resamples, grid):
    x = jax.random.normal(jax.random.key(1), SHOWN.shape)
    sampler = edit.inpaint(SAMPLERS[name](COSINE), COSINE, SHOWN, FIRST, resamples=resamples)
    return jax.jit(lambda key: sample(sampler, correlated_denoiser, x, grid, key))(jax.random.key(2))[:, 0, 1, 0]


@pytest.mark.parametrize(
    "name",
    [
        name if name.startswith(("dpm", "uni")) else pytest.param(name, marks=pytest.mark.slow)
        for name in SAMPLERS
        if name != "lcm"
    ],  # which draws means
)
def test_repeats_come_close_to_the_conditional_distribution_with_every_sampler(name):
    """It is N(1.5 correlation, 1 - correlation^2). What a solver remembers must not survive noise that is put back:
    with it the variances of dpmpp_2m, unipc and dpmpp_2m_sde were 1.3, 1.9 and 18."""
    drawn = inpaint_second(name, 8, times.trailing(20, 0))
    assert float(drawn.mean()) == pytest.approx(1.5 * CORRELATION, abs=0.15)
    assert float(drawn.var()) == pytest.approx(1 - CORRELATION**2, abs=0.06)


def test_the_last_step_is_not_repeated():
    grid = np.array([0.5, 0.0], np.float32)
    np.testing.assert_array_equal(inpaint_second("ddpm", 8, grid), inpaint_second("ddpm", 1, grid))


def test_noise_put_back_is_the_noise_of_the_forward_process():
    """Resampling with nothing known keeps the marginals of a point."""
    image = jnp.zeros((20_000, 1, 1, 1))
    (mean_t, std_t), (mean_s, std_s) = (oracles.gaussian_marginal(COSINE, t, MEAN, 0.0) for t in (0.9, 0.3))
    sampler = edit.inpaint(ddim(COSINE, eta=0.5), COSINE, image, jnp.zeros((1, 1, 1, 1)), resamples=2)
    point = oracles.gaussian_denoiser(COSINE, MEAN, 0.0)
    x = mean_t + std_t * jax.random.normal(jax.random.key(0), image.shape)
    grid = np.array([0.9, 0.6, 0.3], np.float32)
    x = jax.jit(lambda key: sample(sampler, point, x, grid, key))(jax.random.key(1))
    assert float(x.mean()) == pytest.approx(float(mean_s), abs=4 * float(std_s) / 20_000**0.5)
    assert float(x.std()) == pytest.approx(float(std_s), rel=4 / 40_000**0.5)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.5, 5), (0.26, 3), (0.01, 1)])
def test_start_from_walks_a_share_of_the_steps(strength, steps):
    grid, image = times.trailing(10, 0), jnp.full((5000, 1), 0.7)
    x, left = edit.start_from(COSINE, image, grid, jax.random.key(0), strength=strength)
    np.testing.assert_array_equal(left, grid[-steps - 1 :])
    alpha, sigma = COSINE(left[0].item())
    assert float(x.mean()) == pytest.approx(0.7 * float(alpha), abs=4 * float(sigma) / 5000**0.5)
    assert float(x.std()) == pytest.approx(float(sigma), rel=0.05)


@pytest.mark.parametrize("strength", [0.0, 1.5, -0.1])
def test_a_strength_out_of_range_is_named(strength):
    with pytest.raises(ValueError, match=f"strength={strength} must be above 0"):
        edit.start_from(COSINE, jnp.zeros((1, 1)), times.trailing(3, 0), jax.random.key(0), strength=strength)


def test_resamples_below_one_are_named():
    with pytest.raises(ValueError, match="resamples=0"):
        edit.inpaint(ddim(COSINE), COSINE, jnp.zeros((1, 4, 4, 3)), MASK, resamples=0)
