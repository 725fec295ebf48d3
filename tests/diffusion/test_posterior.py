import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import schedules
from flaxgen.diffusion.posterior import LOG_VARIANCES, log_variance, posterior

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


@pytest.mark.parametrize("k", [2, 3, 500, 1000])
def test_of_neighbours_in_a_table_it_is_the_one_of_the_paper(k):
    """[Ho20, eq. 6-7] in float64."""
    now, before = ALPHA_BAR[k - 1], ALPHA_BAR[k - 2]
    beta = 1 - now / before
    post = posterior(schedules.linear(1000), k / 1000, (k - 1) / 1000)
    expected = {
        "from_x": np.sqrt(1 - beta) * (1 - before) / (1 - now),
        "from_x0": np.sqrt(before) * beta / (1 - now),
        "small": beta * (1 - before) / (1 - now),
        "large": beta,
    }
    for field, value in expected.items():
        assert getattr(post, field) == pytest.approx(value, rel=2e-5), field
    assert post.log_small == pytest.approx(np.log(expected["small"]), abs=2e-5)
    assert post.log_large == post.log_beta == pytest.approx(np.log(beta), abs=2e-5)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(0.9, 0.5), (0.3, 0.29), (1.0, 0.2)])
def test_it_is_bayes_rule(name, t, s):
    """Prior q(x_s | x0) times likelihood q(x_t | x_s), by adding precisions, for any two times of any schedule."""
    schedule = schedules.SCHEDULES[name](0)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (np.array(schedule(time), np.float64) for time in (t, s))
    ratio = alpha_t / alpha_s
    noise = sigma_t**2 - ratio**2 * sigma_s**2
    precision = 1 / sigma_s**2 + ratio**2 / noise
    x, x0 = jnp.array([[0.7]]), jnp.array([[-0.4]])
    mean = (alpha_s * -0.4 / sigma_s**2 + ratio * 0.7 / noise) / precision
    post = posterior(schedule, t, s)
    assert post.small == pytest.approx(1 / precision, rel=1e-4)
    assert post.mean(x, x0) == pytest.approx(mean, rel=1e-4)


def test_the_last_step_takes_the_variance_of_the_one_before():
    """posterior_log_variance_clipped of the public code: entry 0 is that of entry 1."""
    schedule = schedules.linear(1000)
    last, second = posterior(schedule, 0.001, 0.0), posterior(schedule, 0.002, 0.001)
    assert last.small == 0
    assert last.log_small == last.log_large == pytest.approx(float(second.log_small), abs=1e-5)
    assert last.log_beta == pytest.approx(np.log(1e-4), abs=1e-4)
    assert (last.from_x, last.from_x0) == (0, pytest.approx(1, abs=1e-6))


@pytest.mark.parametrize("name", schedules.SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.0), (1.0, 0.999), (1e-4, 0.0)])
def test_everything_is_finite_at_the_ends(name, t, s):
    schedule = schedules.SCHEDULES[name](0)
    assert np.isfinite(posterior(schedule, t, s)).all()


def test_log_variance_runs_from_small_to_beta():
    post = posterior(schedules.linear(1000), 0.5, 0.4)
    mix = jnp.array([[0.0, 0.5, 1.0, 1.5]])
    small, beta = float(post.log_small), float(post.log_beta)
    np.testing.assert_allclose(
        log_variance(post, "learned", mix)[0], small + (beta - small) * np.array([0, 0.5, 1, 1.5]), rtol=1e-5
    )
    assert log_variance(post, "small", mix) == post.log_small
    assert log_variance(post, "large", mix) == post.log_large == post.log_beta


def test_errors_name_the_choice():
    post = posterior(schedules.linear(1000), 0.5, 0.4)
    with pytest.raises(ValueError, match="variance='tiny' is not one of " + ", ".join(LOG_VARIANCES)):
        log_variance(post, "tiny", None)
    with pytest.raises(ValueError, match="variance='learned' needs a net that predicts it"):
        log_variance(post, "learned", None)
