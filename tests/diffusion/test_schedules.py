import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import schedules
from flaxgen.diffusion.schedules import SCHEDULES, log_snr, time_of

TIMES = np.array([0.0003, 0.01, 0.3, 0.9, 0.999])
EVERY = [(name, timesteps) for name in SCHEDULES for timesteps in (0, 100)]


def values(schedule, times):
    return (np.asarray(value, np.float64) for value in jax.vmap(schedule)(jnp.asarray(times, jnp.float32)))


def chen(t):
    low, high, now = (1 / (1 + np.exp(-x)) for x in (-3, 3, 6 * t - 3))
    return (high - now) / (high - low)


CONTINUOUS = {  # alpha^2 in float64, from the papers
    "linear": lambda t: np.exp(-0.1 * t - 19.9 * t**2 / 2),
    "cosine": lambda t: np.cos(np.pi / 2 * (t + 0.008) / 1.008) ** 2 / np.cos(np.pi / 2 * 0.008 / 1.008) ** 2,
    "sigmoid": chen,
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_forms_are_the_papers_and_exact_near_both_ends(name):
    times = TIMES[:-1].astype(np.float32).astype(np.float64)
    alpha, sigma = values(SCHEDULES[name](0), times)
    np.testing.assert_allclose(sigma, np.sqrt(1 - CONTINUOUS[name](times)), rtol=2e-6)
    np.testing.assert_allclose(alpha, np.sqrt(CONTINUOUS[name](times)), rtol=2e-5)


def test_scaled_linear_decays_at_the_rate_beta():
    beta = -2 * jax.grad(lambda t: jnp.log(schedules.scaled_linear(0)(t).alpha))(0.3)
    assert beta == pytest.approx(1000 * (0.7 * 0.00085**0.5 + 0.3 * 0.012**0.5) ** 2, rel=1e-4)


def cosine_betas(steps):
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


TABLES = {
    "linear": np.linspace(1e-4, 0.02, 1000),
    "scaled_linear": np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
    "cosine": cosine_betas(1000),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("jitter", [0.0, 1e-7, -1e-7])
def test_tables_read_alpha_bar_at_their_times(name, jitter):
    k = np.array([1, 2, 3, 10, 500, 999, 1000])
    alpha_bar = np.cumprod(1 - TABLES[name])[k - 1]
    alpha, sigma = values(SCHEDULES[name](1000), np.minimum(k / 1000 * (1 + jitter), 1))
    np.testing.assert_allclose(sigma, np.sqrt(1 - alpha_bar), rtol=1e-6)
    if jitter == 0:  # the last two alphas of cosine fall by a factor of 30 in one step
        np.testing.assert_allclose(alpha, np.sqrt(alpha_bar), rtol=3e-6 if name != "cosine" else 1e-4)


def test_betas_of_other_table_sizes_are_scaled():
    """Nearly the same alpha at the same t."""
    coarse, fine = (float(schedules.linear(timesteps)(0.5).alpha) for timesteps in (250, 4000))
    assert coarse == pytest.approx(fine, rel=0.03)


@pytest.mark.parametrize(("name", "timesteps"), EVERY)
def test_starts_clean_and_only_gets_noisier(name, timesteps):
    schedule = SCHEDULES[name](timesteps)
    assert tuple(schedule(0.0)) == (1.0, 0.0)
    snr = jax.vmap(lambda t: log_snr(schedule, t))(jnp.linspace(1e-3, 1, 500))
    assert (jnp.diff(snr) < 0).all()
    assert jnp.isinf(log_snr(schedule, 0.0))


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("timesteps", [0, 100])
def test_variance_is_preserved(name, timesteps):
    times = np.arange(101) / 100
    alpha, sigma = values(SCHEDULES[name](timesteps), times)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)


def test_flow_is_straight_and_edm_explodes():
    alpha, sigma = values(schedules.rectified_flow(0), TIMES)
    np.testing.assert_allclose([alpha, sigma], [1 - TIMES, TIMES], rtol=1e-4)
    alpha, sigma = values(schedules.edm(0), TIMES)
    np.testing.assert_allclose([alpha, sigma], [np.ones(5), 80 * TIMES], rtol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "rectified_flow", "edm"])
def test_a_discretized_schedule_agrees_at_its_knots(name):
    knots = np.arange(1, 11) / 10
    for table, exact in zip(values(SCHEDULES[name](10), knots), values(SCHEDULES[name](0), knots), strict=True):
        np.testing.assert_allclose(table, exact, rtol=1e-6)


def test_zero_terminal_snr_of_a_table_is_the_papers():
    """[Lin23, alg. 1] in float64."""
    root = np.sqrt(np.cumprod(1 - TABLES["linear"]))
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    k = np.array([1, 2, 500, 999, 1000])
    alpha, sigma = values(schedules.zero_terminal_snr(schedules.linear(1000), 1000), k / 1000)
    np.testing.assert_allclose(alpha, expected[k - 1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sigma, np.sqrt(1 - expected[k - 1] ** 2), rtol=1e-5)
    assert alpha[-1] == 0


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
def test_zero_terminal_snr_of_continuous_time_keeps_the_clean_end(name):
    schedule = schedules.zero_terminal_snr(SCHEDULES[name](0))
    assert tuple(schedule(0.0)) == (1.0, 0.0)
    assert schedule(1.0).alpha == 0
    alpha, sigma = values(schedule, TIMES)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("timesteps", [0, 100])
def test_shift_multiplies_the_noise_to_signal_ratio(name, timesteps):
    schedule = SCHEDULES[name](timesteps)
    (alpha, sigma), (shifted_alpha, shifted_sigma) = (
        values(s, TIMES) for s in (schedule, schedules.shift(schedule, 3.0))
    )
    np.testing.assert_allclose(shifted_sigma * alpha, 3 * sigma * shifted_alpha, rtol=1e-5)
    power = {"rectified_flow": 1, "edm": None}.get(name, 2)
    kept = shifted_alpha if power is None else shifted_alpha**power + shifted_sigma**power
    np.testing.assert_allclose(kept, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "timesteps"), [("linear", 21), ("scaled_linear", 75), ("cosine", 1), ("sigmoid", 9), ("rectified_flow", 3)]
)
def test_odd_tables_shift_too(name, timesteps):
    """Between the times of a table, as at t=1/2 there, alpha^2 + sigma^2 is below 1."""
    schedule = SCHEDULES[name](timesteps)
    shifted = schedules.shift(schedule, 3.0, timesteps)
    (alpha, sigma), (shifted_alpha, shifted_sigma) = (
        values(s, jnp.arange(1, timesteps + 1) / timesteps) for s in (schedule, shifted)
    )
    np.testing.assert_allclose(shifted_sigma * alpha, 3 * sigma * shifted_alpha, rtol=1e-5)
    power = 1 if name == "rectified_flow" else 2
    np.testing.assert_allclose(shifted_alpha**power + shifted_sigma**power, 1, atol=1e-6)


@pytest.mark.parametrize(("name", "timesteps"), EVERY)
def test_time_of_inverts_the_schedule(name, timesteps):
    schedule = SCHEDULES[name](timesteps)
    times = jnp.array([1e-4, 3e-3, 0.2, 0.7, 0.99])
    alpha, sigma = jax.vmap(schedule)(times)
    found = jax.jit(jax.vmap(lambda ratio: time_of(schedule, ratio)))(sigma / alpha)
    np.testing.assert_allclose(found, times, rtol=2e-5)


def test_time_of_more_noise_than_there_is_is_the_end():
    assert time_of(schedules.edm(0), 100.0) == 1
    assert time_of(schedules.rectified_flow(0), float("inf")) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.linear(10), "timesteps=10 would need a beta of 2"),
        (lambda: schedules.from_betas([0.1, 1.2]), "betas must be"),
        (lambda: schedules.table([0.5, 0.7]), "falls within"),
        (lambda: schedules.discretize(schedules.edm(0), -1), "timesteps=-1"),
        (lambda: schedules.shift(lambda t: schedules.AlphaSigma(*2 * (jnp.float32(1 + t),)), 2.0), "at 1; at t=0.5"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
