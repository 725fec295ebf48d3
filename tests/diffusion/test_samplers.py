import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from flaxgen.diffusion import denoise, schedules
from flaxgen.diffusion.guidance import clip_x0
from flaxgen.diffusion.samplers import (
    SAMPLERS,
    Churn,
    ancestral,
    churned,
    ddim,
    ddim_inversion,
    dpmpp_2m_sde,
    euler,
    heun,
    lcm,
    sample,
    trajectory,
    unipc,
)
from flaxgen.types import Denoised

MEAN, STD = 0.3, 0.5
SCHEDULES = {"vp": schedules.cosine(0), "flow": schedules.rectified_flow(0), "ve": schedules.edm(0, sigma_max=10.0)}
RANGES = {"vp": (0.9, 0.1), "flow": (0.9, 0.1), "ve": (0.1, 0.02)}
FLOW = SCHEDULES["flow"]
POINT = oracles.gaussian_denoiser(FLOW, 0.0, 0.0)
ZERO_SNR = {"vp": schedules.zero_terminal_snr(SCHEDULES["vp"]), "flow": FLOW}
DISTINCT = ["ddpm", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "dpmpp_3m", "plms"]
STOCHASTIC = {
    "ancestral small": functools.partial(ancestral, variance="small"),
    "ddim eta 0.5": functools.partial(ddim, eta=0.5),
    "euler churn": functools.partial(euler, churn=Churn(0.01)),
    "heun churn": functools.partial(heun, churn=Churn(0.2)),
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


def grid(start, end, steps):
    return np.linspace(start, end, steps + 1).astype(np.float32)


OPTIMISED = {"xla_backend_optimization_level": 2}
"""For what runs longer than it compiles."""


def run(sampler, predict, x, times, seed=0, options=None):
    draw = jax.jit(lambda x, key: sample(sampler, predict, x, times, key), compiler_options=options)
    return draw(x, jax.random.key(seed))


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3)])
def test_order_of_convergence(name, order, kind):
    """A corrector adds one to the order of UniPC-2 [Zhao23]."""
    schedule, (start, end) = SCHEDULES[kind], RANGES[kind]
    x = jnp.array([[-1.5, 0.2, 2.0]]) * schedule(start).sigma
    exact = oracles.gaussian_ode(schedule, x, start, end, MEAN, STD)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    coarse, fine = (
        float(jnp.abs(run(SAMPLERS[name](schedule), predict, x, grid(start, end, steps)) - exact).max())
        for steps in (32, 64)
    )
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.3)
    assert fine < 0.03


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("name", "share"), [("dpmpp_3m", 0.2), ("plms", 0.3)])
def test_a_longer_memory_is_more_accurate(name, share, kind):
    """Than that of dpmpp_2m; of order two like it, they are asked for no more."""
    schedule, (start, end) = SCHEDULES[kind], RANGES[kind]
    x = jnp.array([[-1.5, 0.2, 2.0]]) * schedule(start).sigma
    exact = oracles.gaussian_ode(schedule, x, start, end, MEAN, STD)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    found, plain = (
        float(jnp.abs(run(SAMPLERS[which](schedule), predict, x, grid(start, end, 32)) - exact).max())
        for which in (name, "dpmpp_2m")
    )
    assert found < share * plain


def test_ddim_shapes_x0_alone_or_the_noise_with_it():
    """One step from x, clipped at 1: of diffusers the default call, and use_clipped_model_output=True."""
    schedule, x = SCHEDULES["vp"], jnp.array([[3.0, 0.1]])
    (alpha, sigma), (alpha_s, sigma_s) = schedule(0.5), schedule(0.3)

    def predict(x, t):
        return Denoised(jnp.array([[2.5, 0.3]]))

    raw = run(ddim(schedule, shape=clip_x0), predict, x, grid(0.5, 0.3, 1))
    both = run(ddim(schedule), clip_x0(predict), x, grid(0.5, 0.3, 1))
    x0, eps = jnp.array([[1.0, 0.3]]), (x - alpha * jnp.array([[2.5, 0.3]])) / sigma
    np.testing.assert_allclose(raw, alpha_s * x0 + sigma_s * eps, rtol=1e-5)
    np.testing.assert_allclose(both, alpha_s * x0 + sigma_s * (x - alpha * x0) / sigma, rtol=1e-5)
    assert (raw[0, 0] != both[0, 0]) & (raw[0, 1] == pytest.approx(float(both[0, 1]), rel=1e-6))


def marginal_error(make, kind, mean, std, steps, end=None):
    """Of mean and standard deviation, in units of their sampling error."""
    schedule, (start, last) = SCHEDULES[kind], RANGES[kind]
    count, end = 40_000, last if end is None else end
    (mean_t, std_t), (mean_s, std_s) = (oracles.gaussian_marginal(schedule, t, mean, std) for t in (start, end))
    x = mean_t + std_t * jax.random.normal(jax.random.key(1), (count, 1))
    x = run(make(schedule), oracles.gaussian_denoiser(schedule, mean, std), x, grid(start, end, steps), 0, OPTIMISED)
    error = jnp.stack([x.mean() - mean_s, (x.std() - std_s) * 2**0.5])
    return np.abs(error) / (std_s / count**0.5)


@pytest.mark.parametrize("kind", ["flow", "ve"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_put_in_is_noise_taken_out(name, kind):
    """Of a single point, where x0 is known, every number of steps keeps the marginals exactly."""
    assert (marginal_error(STOCHASTIC[name], kind, MEAN, 0.0, 4) < 4).all()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_marginals_of_a_gaussian_are_kept(name):
    assert (marginal_error(STOCHASTIC[name], "vp", MEAN, STD, 500) < 4).all()


def test_large_variance_is_exact_for_unit_normal_data():
    """[Ho20, sec. 3.2]; the small one then falls short."""
    large = functools.partial(ancestral, variance="large")
    assert (marginal_error(large, "vp", 0.0, 1.0, 4) < 4).all()
    assert marginal_error(ancestral, "vp", 0.0, 1.0, 4)[1] > 20


@pytest.mark.parametrize(("var_mix", "name"), [(0.0, "small"), (1.0, "large")])
def test_learned_variance_runs_from_small_to_large(var_mix, name):
    schedule, times = SCHEDULES["vp"], grid(0.9, 0.0, 3)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    x = jax.random.normal(jax.random.key(1), (2, 3))

    def learned(x, t):
        return Denoised(predict(x, t).x0, jnp.full(x.shape, var_mix))

    expected = run(ancestral(schedule, name), predict, x, times)
    np.testing.assert_allclose(run(ancestral(schedule, "learned"), learned, x, times), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_samplers_that_are_one_agree(kind):
    """Ancestral with small variance is DDIM with eta 1; euler is DDIM with eta 0."""
    schedule, times = SCHEDULES[kind], grid(0.9, 0.0, 5)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    x = jax.random.normal(jax.random.key(1), (2, 3))
    ours = [run(s, predict, x, times) for s in (ancestral(schedule), ddim(schedule, eta=1.0))]
    np.testing.assert_allclose(*ours, rtol=1e-4, atol=1e-5)
    (alpha, sigma), (alpha_s, sigma_s) = schedule(0.9), schedule(0.5)
    slope = (x - alpha * predict(x, 0.9).x0) / sigma
    step = alpha_s * (x / alpha + slope * (sigma_s / alpha_s - sigma / alpha))
    np.testing.assert_allclose(run(euler(schedule), predict, x, grid(0.9, 0.5, 1)), step, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "prediction", "kind"),
    [(name, denoise.V, "vp") for name in DISTINCT[::2]] + [(name, denoise.FLOW, "flow") for name in DISTINCT[1::2]],
)
def test_starts_where_no_signal_is_left(name, prediction, kind):
    """From alpha = 0 to sigma = 0, in few steps, with a finite result and finite gradients."""
    schedule = ZERO_SNR[kind]
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)

    def net(x, time, condition):
        alpha, sigma = schedule(time[0])
        x0 = predict(x, time[0]).x0
        return prediction.target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    bound = denoise.make_bind(net, schedule, prediction, denoise.scaled_time(1.0))({})
    x = jnp.array([[-1.0, 0.5]])

    def total(x):
        drawn = sample(SAMPLERS[name](schedule), bound, x, grid(1, 0, 4), jax.random.key(0))
        return drawn.sum(), drawn

    gradient, drawn = jax.jit(jax.grad(total, has_aux=True))(x)
    assert jnp.isfinite(gradient).all()
    assert (jnp.abs(drawn - MEAN) < 6 * STD).all()


@pytest.mark.parametrize("name", DISTINCT)
def test_an_example_depends_on_its_key_alone(name):
    """A batch by vmap, one key an example, is what each gives by itself; its trajectory ends there."""
    schedule, times = SCHEDULES["vp"], grid(1, 0, 3)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    x = jax.random.normal(jax.random.key(1), (3, 1, 2))

    def draw(how, x, seed):
        return how(SAMPLERS[name](schedule), predict, x, times, jax.random.key(seed))

    batch = jax.jit(jax.vmap(functools.partial(draw, trajectory)))(x, jnp.arange(3))
    alone = jax.jit(functools.partial(draw, sample))(x[1], 1)
    np.testing.assert_allclose(batch[1, -1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", [schedules.linear(1000), schedules.cosine(1000)])
@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "unipc"])
def test_ten_steps_from_the_end_of_a_table_come_near(name, schedule):
    """Cosine ends at sigma / alpha = 20,000."""
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    x = jnp.array([[-1.0], [1.0]])
    drawn = run(SAMPLERS[name](schedule), predict, x, grid(1, 0, 10))
    np.testing.assert_allclose(drawn, oracles.gaussian_ode(schedule, x, 1.0, 0.0, MEAN, STD), atol=0.2 * STD)


def test_heun_calls_the_net_twice_a_step_and_once_at_the_end():
    schedule, calls = SCHEDULES["vp"], []
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)

    def counted(x, t):
        jax.debug.callback(calls.append, t)
        return predict(x, t)

    run(heun(schedule), counted, jnp.ones((1, 1)), grid(0.9, 0, 3)).block_until_ready()
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(map(float, calls)), [0.3, 0.3, 0.6, 0.6, 0.9], rtol=1e-6)


def test_churn_respects_its_bounds():
    """Outside of them nothing is stirred, and the step is that of the sampler alone."""
    schedule, times = SCHEDULES["vp"], grid(0.9, 0.1, 3)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    x, plain = jnp.ones((1, 2)), ddim(schedule)
    outside = churned(plain, schedule, Churn(0.3, low=1e3))
    inside = churned(plain, schedule, Churn(0.3, low=1e-3, high=1e3))
    expected = run(plain, predict, x, times)
    np.testing.assert_allclose(run(outside, predict, x, times), expected, rtol=1e-6)
    assert (jnp.abs(run(inside, predict, x, times) - expected) > 1e-3).all()


@pytest.mark.parametrize("kind", SCHEDULES)
def test_inversion_and_back(kind):
    """Fixed-point iterations make it exact; one is close."""
    schedule, times = SCHEDULES[kind], grid(RANGES[kind][0], 0, 12)
    predict = oracles.gaussian_denoiser(schedule, MEAN, STD)
    image = jnp.array([[-0.4, 0.1, 0.9]])

    def back_and_forth(iterations):
        noise = run(ddim_inversion(schedule, iterations), predict, image, times[::-1])
        return jnp.abs(run(ddim(schedule), predict, noise, times) - image).max()

    once, often = back_and_forth(1), back_and_forth(30)
    assert often < 1e-3
    assert 2 * often < once < 0.4


def test_unipc_keeps_an_edit_between_its_steps():
    """A shift of x must survive the correction that the next step makes."""
    schedule, sampler = SCHEDULES["vp"], unipc(SCHEDULES["vp"])
    key = jax.random.key(0)

    def predict(x, t):
        return Denoised(jnp.zeros_like(x) + jnp.float32(t))

    state = sampler.init(jnp.ones((1, 1)))
    for t, s in [(0.9, 0.8), (0.8, 0.7)]:
        state = sampler.step(predict, state, t, s, key)
    moved, still = (sampler.step(predict, edited, 0.7, 0.6, key).x for edited in (state._replace(x=state.x + 1), state))
    ratio = schedule(0.6).sigma / schedule(0.7).sigma
    np.testing.assert_allclose(moved - still, jnp.full((1, 1), ratio), rtol=1e-5)


@pytest.mark.parametrize(("every", "taken"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (5, [4]), (9, [4])])
def test_trajectory_holds_the_x0_of_every_kth_step(every, taken):
    schedule, times = SCHEDULES["vp"], grid(1, 0, 5)

    def predict(x, t):
        return Denoised(jnp.zeros_like(x) + t)

    x0 = trajectory(ddim(schedule), predict, jnp.ones((2, 3)), times, jax.random.key(0), every)
    np.testing.assert_allclose(x0, np.broadcast_to(times[taken, None, None], (len(taken), 2, 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ancestral(SCHEDULES["vp"], "medium"), "variance='medium' is not one of small, large, learned"),
        (lambda: ddim_inversion(SCHEDULES["vp"], 0), "iterations=0"),
        (lambda: trajectory(ddim(FLOW), POINT, jnp.ones((1, 1)), grid(1, 0, 2), jax.random.key(0), 0), "every=0"),
        (lambda: sample(ddim(FLOW), POINT, jnp.ones((1, 1)), grid(1, 0, 0), jax.random.key(0)), "a start"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_consistency_model_says_x0_and_gets_fresh_noise_on_it():
    """From a net that knows x0 the next sample is N(alpha x0, sigma^2), and the last one x0."""
    schedule = SCHEDULES["vp"]

    def knows(x, t):
        return denoise.Denoised(jnp.full_like(x, 0.3))

    x = jax.random.normal(jax.random.key(1), (4000, 1))
    half = sample(lcm(schedule), knows, x, jnp.asarray([1.0, 0.5]), jax.random.key(0))
    alpha, sigma = schedule(0.5)
    assert float(half.mean()) == pytest.approx(float(alpha) * 0.3, abs=0.06)
    assert float(half.std()) == pytest.approx(float(sigma), rel=0.05)
    np.testing.assert_allclose(sample(lcm(schedule), knows, x, grid(1, 0, 4), jax.random.key(0)), 0.3, atol=1e-5)
