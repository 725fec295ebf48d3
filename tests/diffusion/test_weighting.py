import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import schedules, weighting
from flaxgen.diffusion.denoise import PREDICTIONS, edm

TIMES = jnp.linspace(0.01, 0.99, 20)
PATHS = {name: make(0) for name, make in schedules.SCHEDULES.items()}


def along(path, weight, prediction):
    return jax.vmap(lambda t: weight(prediction, *PATHS[path](t)))(TIMES)


@pytest.mark.parametrize("path", ["cosine", "rectified_flow", "edm"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_weights_do_not_depend_on_the_prediction(name, path):
    """Times gain^2 each is a weight on the squared error of x0, the same for all predictions."""
    prediction = PREDICTIONS[name]
    alpha, sigma = jax.vmap(PATHS[path])(TIMES)
    on_x0 = prediction.gain(alpha, sigma) ** 2
    snr = (alpha / sigma) ** 2
    np.testing.assert_allclose(along(path, weighting.min_snr(5.0), prediction) * on_x0, jnp.minimum(snr, 5), rtol=1e-5)
    of_the_paper = (1 / snr + 0.25) / (0.25 / snr)
    np.testing.assert_allclose(along(path, weighting.edm(0.5), prediction) * on_x0, of_the_paper, rtol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_edm_weight_is_one_for_edm_preconditioning(path):
    """lambda(sigma) c_out(sigma)^2 = 1 [Karras22, sec. 5]."""
    np.testing.assert_allclose(along(path, weighting.edm(0.7), edm(0.7)), 1, rtol=1e-5)
    np.testing.assert_array_equal(along(path, weighting.simple, edm(0.7)), 1)


@pytest.mark.parametrize("weight", weighting.WEIGHTS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_weights_are_finite_where_nothing_or_everything_is_noise(name, weight):
    at_ends = [weighting.WEIGHTS[weight](PREDICTIONS[name], *path(t)) for path in PATHS.values() for t in (0.0, 1.0)]
    assert np.isfinite(at_ends).all()
    assert min(at_ends) >= 0


def draws(sample_time, count=4096):
    return np.asarray(jax.jit(jax.vmap(sample_time))(jax.random.split(jax.random.key(0), count)))


@pytest.mark.parametrize("name", weighting.TIME_SAMPLING)
@pytest.mark.parametrize("path", ["cosine", "edm"])
def test_times_are_in_range(name, path):
    times = draws(weighting.TIME_SAMPLING[name](PATHS[path], 50))
    assert (times > 0).all()
    assert (times <= 1).all()


def test_table_times_are_all_knots_alike():
    times = draws(weighting.table_time(8))
    knots, counts = np.unique(times, return_counts=True)
    np.testing.assert_array_equal(knots, np.arange(1, 9, dtype=np.float32) / 8)
    assert np.abs(counts - 512).max() < 5 * np.sqrt(512 * 7 / 8)


@pytest.mark.parametrize("path", ["edm", "cosine", "rectified_flow", "linear"])
def test_log_normal_times_have_log_normal_noise(path):
    alpha, sigma = jax.vmap(PATHS[path])(draws(weighting.log_normal_time(PATHS[path], -1.2, 1.2)))
    log_noise = np.log(sigma / alpha)
    assert log_noise.mean() == pytest.approx(-1.2, abs=5 * 1.2 / 64)
    assert log_noise.std() == pytest.approx(1.2, abs=5 * 1.2 / 64 / np.sqrt(2))


def test_logit_normal_and_uniform_times():
    times = draws(weighting.logit_normal_time(0.5, 2.0))
    logit = np.log(times) - np.log1p(-times)
    assert logit.mean() == pytest.approx(0.5, abs=5 * 2 / 64)
    assert logit.std() == pytest.approx(2, abs=5 * 2 / 64 / np.sqrt(2))
    uniform = np.sort(draws(weighting.uniform_time))
    assert np.abs(uniform - np.linspace(0, 1, 4096)).max() < 2 / 64  # Kolmogorov-Smirnov at p ~ 1e-3
