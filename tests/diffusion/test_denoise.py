import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import schedules
from flaxgen.diffusion.denoise import FLOW, PREDICTIONS, edm, make_bind, quarter_log_sigma, scaled_time, table_index

LINEAR, FLOW_PATH, EDM = schedules.linear(1000), schedules.rectified_flow(0), schedules.edm(0)
X0, EPS = jax.random.normal(jax.random.key(0), (2, 3, 5))


@pytest.mark.parametrize("schedule", [LINEAR, FLOW_PATH, EDM], ids=["linear", "flow", "edm"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_target_is_the_output_that_reads_as_x0(name, schedule):
    prediction, (alpha, sigma) = PREDICTIONS[name], schedule(0.4)
    target = prediction.target(X0, EPS, alpha, sigma)
    x0 = prediction.x0(target, alpha * X0 + sigma * EPS, alpha, sigma)
    np.testing.assert_allclose(x0, X0, atol=1e-5 * (1 + sigma))


@pytest.mark.parametrize("schedule", [LINEAR, FLOW_PATH, EDM], ids=["linear", "flow", "edm"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_gain_is_the_slope_of_the_output_against_x0(name, schedule):
    prediction, (alpha, sigma) = PREDICTIONS[name], schedule(0.3)
    slope = jax.grad(lambda out: prediction.x0(out, 0.7, alpha, sigma))(0.2)
    assert abs(1 / slope) == pytest.approx(float(prediction.gain(alpha, sigma)), rel=1e-5)


def test_flow_velocity_is_the_derivative_of_the_path():
    def path(t):
        alpha, sigma = FLOW_PATH(t)
        return alpha * X0 + sigma * EPS

    _, velocity = jax.jvp(path, (0.3,), (1.0,))
    np.testing.assert_allclose(FLOW.target(X0, EPS, *FLOW_PATH(0.3)), velocity, atol=1e-6)


@pytest.mark.parametrize("schedule", [LINEAR, FLOW_PATH, EDM], ids=["linear", "flow", "edm"])
@pytest.mark.parametrize("t", [0.0, 1e-6, 0.1, 0.5, 1.0])
def test_edm_keeps_input_and_target_at_unit_variance(schedule, t):
    """The two conditions that c_in, c_skip and c_out follow from [Karras22, app. B.6]."""
    sigma_data = 0.7
    prediction, (alpha, sigma) = edm(sigma_data), schedule(t)
    of_x0, of_eps = prediction.target(sigma_data, 0.0, alpha, sigma), prediction.target(0.0, 1.0, alpha, sigma)
    assert of_x0**2 + of_eps**2 == pytest.approx(1, rel=1e-5)
    variance = prediction.scale_in(alpha, sigma) ** 2 * ((alpha * sigma_data) ** 2 + sigma**2)
    assert variance == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_edm_is_the_table_of_the_paper(sigma):
    prediction, out, x = edm(0.5), 0.3, 1.1
    skip, scale = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / np.sqrt(sigma**2 + 0.25)
    alpha = jnp.float32(1)
    assert prediction.x0(out, x, alpha, jnp.float32(sigma)) == pytest.approx(skip * x + scale * out, rel=1e-5)
    assert quarter_log_sigma(0.0, schedules.AlphaSigma(alpha, jnp.float32(sigma))) == pytest.approx(
        np.log(sigma) / 4, rel=1e-5
    )


def test_time_inputs():
    ends = [float(table_index(1000)(t, LINEAR(t))) for t in (0.001, 1.0)]
    assert ends == pytest.approx([0, 999], abs=1e-4)
    assert scaled_time(1000.0)(0.25, LINEAR(0.25)) == 250
    assert np.isfinite([quarter_log_sigma(t, s(t)) for t in (0.0, 1.0) for s in (LINEAR, FLOW_PATH, EDM)]).all()


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_net_that_is_right_denoises_exactly(name):
    """Through make_bind: the net sees the scaled x and the time of every example, and answers in low precision."""
    prediction, t = PREDICTIONS[name], 0.4
    alpha, sigma = FLOW_PATH(t)
    x = alpha * X0 + sigma * EPS
    seen = {}

    def net(x, time, condition):
        seen.update(x=x, time=time, **condition)
        variance = jnp.broadcast_to(jnp.array([-1.0, 0, 1, 0, 0]), X0.shape)
        out = jnp.concatenate([prediction.target(X0, EPS, alpha, sigma), variance], axis=-1)
        return out.astype(jnp.bfloat16)

    bind = make_bind(net, FLOW_PATH, prediction, table_index(10), learned_variance=True)
    denoised = bind({"label": jnp.arange(3)})(x, t)
    np.testing.assert_allclose(denoised.x0, X0, atol=0.03)
    assert denoised.x0.dtype == jnp.float32
    assert denoised.var_mix is not None
    np.testing.assert_array_equal(denoised.var_mix[0], [0, 0.5, 1, 0.5, 0.5])
    np.testing.assert_allclose(seen["x"], prediction.scale_in(alpha, sigma) * x, rtol=1e-6)
    np.testing.assert_allclose(seen["time"], [3, 3, 3])
    np.testing.assert_array_equal(seen["label"], [0, 1, 2])


def test_without_learned_variance_there_is_no_var_mix():
    bind = make_bind(lambda x, time, condition: x, LINEAR, PREDICTIONS["x0"], table_index(1000))
    denoised = bind({})(X0, 0.5)
    assert denoised.var_mix is None
    np.testing.assert_array_equal(denoised.x0, X0)
