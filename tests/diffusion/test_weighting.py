import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import schedules, weighting
from flaxgen.diffusion.denoise import PREDICTIONS, edm
from flaxgen.diffusion.schedules import log_snr

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
    np.testing.assert_allclose(
        along(path, weighting.snr_plus_one(9.0), prediction) * on_x0, jnp.minimum(snr + 1, 9), rtol=1e-5
    )
    of_the_paper = (1 / snr + 0.25) / (0.25 / snr)
    np.testing.assert_allclose(along(path, weighting.edm(0.5), prediction) * on_x0, of_the_paper, rtol=1e-4)


@pytest.mark.parametrize("path", ["cosine", "rectified_flow", "edm"])
def test_edm_weight_is_one_for_edm_preconditioning(path):
    """lambda(sigma) c_out(sigma)^2 = 1 [Karras22, sec. 5]."""
    np.testing.assert_allclose(along(path, weighting.edm(0.7), edm(0.7)), 1, rtol=1e-5)
    np.testing.assert_array_equal(along(path, weighting.simple, edm(0.7)), 1)


@pytest.mark.parametrize("path", ["linear", "cosine", "sigmoid"])
def test_snr_plus_one_on_x0_is_the_plain_error_of_v(path):
    ours = along(path, weighting.snr_plus_one(1e9), PREDICTIONS["v"])
    np.testing.assert_allclose(ours, 1, rtol=1e-3)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_weights_are_finite_where_nothing_or_everything_is_noise(name):
    @jax.jit
    def at_ends():
        return [
            weight(PREDICTIONS[name], *path(t))
            for weight in weighting.WEIGHTS.values()
            for path in PATHS.values()
            for t in (0.0, 1.0)
        ]

    weights = np.array(at_ends())
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


def draws(sample_time, count=4096):
    return np.asarray(jax.jit(jax.vmap(sample_time))(jax.random.split(jax.random.key(0), count)))


@pytest.mark.parametrize("path", ["cosine", "edm"])
def test_times_are_in_range(path):
    samplers = [make(PATHS[path], 50) for make in weighting.TIME_SAMPLING.values()]
    times = draws(
        lambda key: jnp.stack([sample(k) for sample, k in zip(samplers, jax.random.split(key, 4), strict=True)])
    )
    assert ((times > 0) & (times <= 1)).all()
    assert (times.std(axis=0) > 0).all()


def test_table_times_are_all_knots_alike():
    times = draws(weighting.table_time(8))
    knots, counts = np.unique(times, return_counts=True)
    np.testing.assert_array_equal(knots, np.arange(1, 9, dtype=np.float32) / 8)
    assert np.abs(counts - 512).max() < 5 * np.sqrt(512 * 7 / 8)


def test_log_normal_times_have_log_normal_noise():
    """On every schedule whose noise ends far enough out."""

    def log_noise(key):
        keys = jax.random.split(key, len(PATHS))
        times = [weighting.log_normal_time(path, -1.2, 1.2)(k) for path, k in zip(PATHS.values(), keys, strict=True)]
        return jnp.stack([-log_snr(path, t) / 2 for path, t in zip(PATHS.values(), times, strict=True)])

    found = draws(log_noise)
    np.testing.assert_allclose(found.mean(axis=0), -1.2, atol=5 * 1.2 / 64)
    np.testing.assert_allclose(found.std(axis=0), 1.2, atol=5 * 1.2 / 64 / np.sqrt(2))


def test_logit_normal_and_uniform_times():
    times = draws(weighting.logit_normal_time(0.5, 2.0))
    logit = np.log(times) - np.log1p(-times)
    assert logit.mean() == pytest.approx(0.5, abs=5 * 2 / 64)
    assert logit.std() == pytest.approx(2, abs=5 * 2 / 64 / np.sqrt(2))
    uniform = np.sort(draws(weighting.uniform_time))
    assert np.abs(uniform - np.linspace(0, 1, 4096)).max() < 2 / 64  # Kolmogorov-Smirnov at p ~ 1e-3


def test_a_shift_moves_logit_normal_times_by_its_logarithm():
    keys = jax.random.split(jax.random.key(0), 4096)
    sample = weighting.shifted(weighting.TIME_SAMPLING["logit_normal"](PATHS["rectified_flow"], 0), 3.0)
    logits = jax.scipy.special.logit(jax.vmap(sample)(keys))
    assert float(logits.mean()) == pytest.approx(np.log(3), abs=0.06)
    assert float(logits.std()) == pytest.approx(1, abs=0.05)
