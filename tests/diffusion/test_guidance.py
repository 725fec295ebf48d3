import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from flaxgen.diffusion import guidance, losses, schedules
from flaxgen.diffusion.denoise import table_index
from flaxgen.diffusion.posterior import posterior
from flaxgen.types import Denoised

SCHEDULE = schedules.linear(1000)
X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
STD, COND, NULL = 0.5, 0.8, -0.2


def bind(condition):
    """The best denoiser of N(condition["mean"], STD^2); its learned variance is the mean again."""

    def denoise(x, t):
        mean = condition["mean"][:, None, None, None]
        denoised = oracles.gaussian_denoiser(SCHEDULE, mean, STD)(x, t)
        return Denoised(denoised.x0, jnp.broadcast_to(mean, x.shape))

    return denoise


def told(mean):
    return {"mean": jnp.full(len(X), mean)}


@pytest.mark.parametrize("t", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_between_two_gaussians_is_a_gaussian_further_out(scale, t):
    """The best denoiser is linear in the mean, so guidance extrapolates the mean."""
    guided = guidance.classifier_free(bind, told(COND), told(NULL), scale)(X, t)
    further = oracles.gaussian_denoiser(SCHEDULE, NULL + scale * (COND - NULL), STD)
    np.testing.assert_allclose(guided.x0, further(X, t).x0, atol=1e-5)
    np.testing.assert_array_equal(guided.var_mix, jnp.full_like(X, COND))


def test_scale_one_is_the_condition_to_the_bit():
    guided = guidance.classifier_free(bind, told(COND), told(NULL), 1.0)(X, 0.5)
    np.testing.assert_array_equal(guided.x0, bind(told(COND))(X, 0.5).x0)


def test_scale_is_traced_and_may_differ_between_examples():
    traces = []

    @jax.jit
    def guided(scale, rescale):
        traces.append(0)
        return guidance.classifier_free(bind, told(COND), told(NULL), scale, rescale)(X, 0.5).x0

    alone = jnp.stack([guided(jnp.float32(scale), 0.3)[i] for i, scale in enumerate((1.0, 2.0, 4.0))])
    assert len(traces) == 1
    np.testing.assert_allclose(guided(jnp.array([1.0, 2, 4])[:, None, None, None], 0.3), alone, atol=1e-6)


def test_rescale_goes_to_the_standard_deviation_of_the_condition():
    def bind_spread(condition):  # null and cond of different spread, so that guidance inflates it
        return lambda x, t: Denoised(condition["mean"][:, None, None, None] * x)

    def guided(rescale):
        return guidance.classifier_free(bind_spread, told(1.0), told(0.5), 3.0, rescale)(X, 0.5).x0

    np.testing.assert_allclose(guided(0.0), 2 * X, rtol=1e-5)
    np.testing.assert_allclose(guided(1.0), X, rtol=1e-5)
    np.testing.assert_allclose(guided(0.25), 1.75 * X, rtol=1e-5)
    shifted = guidance.classifier_free(bind, told(COND), told(NULL), 5.0, 1.0)(X, 0.5).x0
    np.testing.assert_allclose(
        np.std(shifted, axis=(1, 2, 3)), np.std(bind(told(COND))(X, 0.5).x0, axis=(1, 2, 3)), rtol=1e-4
    )


def test_guidance_is_evaluated_within_the_interval_only():
    calls = []

    def counted(name, denoise):
        def inner(x, t):
            jax.debug.callback(lambda t: calls.append((name, round(float(t), 4))), t)
            return denoise(x, t)

        return inner

    plain = counted("plain", bind(told(COND)))
    guided = counted("guided", guidance.classifier_free(bind, told(COND), told(NULL), 3.0))
    times = jnp.array([0.1, 0.2, 0.3, 0.4, 0.5])
    limited = jax.jit(
        lambda low, high: jax.lax.map(lambda t: guidance.limited_interval(guided, plain, low, high)(X, t).x0, times)
    )
    x0 = limited(0.2, 0.4)
    jax.effects_barrier()
    assert sorted(calls) == [("guided", 0.3), ("guided", 0.4), ("plain", 0.1), ("plain", 0.2), ("plain", 0.5)]
    for i, mean in enumerate([COND, COND, NULL + 3 * (COND - NULL), NULL + 3 * (COND - NULL), COND]):
        np.testing.assert_allclose(x0[i], oracles.gaussian_denoiser(SCHEDULE, mean, STD)(X, times[i]).x0, atol=1e-5)


@pytest.mark.parametrize("path", ["linear", "rectified_flow", "edm"])
@pytest.mark.parametrize("t", [0.02, 0.5, 0.9])
def test_the_true_classifier_gives_the_conditional_denoiser(path, t):
    """x0 ~ N(0, STD^2) and y = x0 + N(0, 0.3^2): every distribution in Bayes' rule is a Gaussian."""
    schedule, noise, y = schedules.SCHEDULES[path](0), 0.3, 0.9
    prior = oracles.gaussian_denoiser(schedule, 0.0, STD)

    def log_prob(x, t):
        alpha, sigma = schedule(t)
        variance = STD**2 * sigma**2 / ((alpha * STD) ** 2 + sigma**2) + noise**2
        return -0.5 * jnp.sum((y - prior(x, t).x0) ** 2, axis=(1, 2, 3)) / variance

    std = (STD**-2 + noise**-2) ** -0.5
    exact = oracles.gaussian_denoiser(schedule, y * std**2 / noise**2, std)
    found = guidance.classifier(prior, schedule, log_prob, 1.0)(X, t).x0
    np.testing.assert_allclose(found, exact(X, t).x0, atol=2e-5)
    twice = guidance.classifier(prior, schedule, log_prob, 2.0)(X, t).x0
    np.testing.assert_allclose(twice, 2 * found - prior(X, t).x0, atol=2e-5)


@pytest.mark.parametrize("path", ["linear", "rectified_flow"])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_where_there_is_no_signal_a_classifier_changes_nothing(path, slope):
    """At zero terminal SNR alpha is 0: the shift would be slope / 0."""
    schedule = schedules.zero_terminal_snr(SCHEDULE, 1000) if path == "linear" else schedules.rectified_flow(0)
    prior = oracles.gaussian_denoiser(schedule, 0.0, STD)
    guided = guidance.classifier(prior, schedule, lambda x, t: slope * jnp.sum(x, axis=(1, 2, 3)), 3.0)
    assert schedule(1.0).alpha == 0
    np.testing.assert_array_equal(guided(X, 1.0).x0, prior(X, 1.0).x0)
    np.testing.assert_array_equal(guided(X, 0.9).x0 == prior(X, 0.9).x0, slope == 0)


def mixture(labels_mean):
    """Two classes at +-labels_mean with STD: the best denoiser of both, and a net with the true logits."""

    def log_odds(x, t):
        alpha, sigma = SCHEDULE(t)
        return 2 * alpha * labels_mean / ((alpha * STD) ** 2 + sigma**2) * jnp.sum(x, axis=(1, 2, 3))

    def denoise(x, t):
        second = jax.nn.sigmoid(log_odds(x, t))[:, None, None, None]
        parts = [oracles.gaussian_denoiser(SCHEDULE, mean, STD)(x, t).x0 for mean in (-labels_mean, labels_mean)]
        return Denoised((1 - second) * parts[0] + second * parts[1], jnp.full_like(x, 0.7))

    def net(x, time, condition):
        logit = log_odds(x, (time[0] + 1) / 1000)
        return jnp.stack([-logit / 2, logit / 2], axis=-1)

    return denoise, net


@pytest.mark.parametrize("label", [0, 1])
def test_a_net_that_tells_classes_picks_one_of_a_mixture(label):
    denoise, net = mixture(0.1)
    log_prob = guidance.label_log_prob(net, SCHEDULE, table_index(1000), jnp.full(3, label))
    guided = guidance.classifier(denoise, SCHEDULE, log_prob, 1.0)(X, 0.4)
    exact = oracles.gaussian_denoiser(SCHEDULE, (-0.1, 0.1)[label], STD)
    np.testing.assert_allclose(guided.x0, exact(X, 0.4).x0, atol=1e-5)
    np.testing.assert_array_equal(guided.var_mix, jnp.full_like(X, 0.7))


def test_label_log_prob_is_what_the_loss_trains():
    _, net = mixture(0.1)
    labels = jnp.array([0, 1, 1])
    loss = losses.classification_loss(
        lambda params, x, time, condition, key: net(x, time, condition),
        SCHEDULE,
        table_index(1000),
        sample_time=lambda key: 0.4,
        inputs=lambda batch, key: (batch["x0"], {"label": batch["label"]}),
    )
    value, _ = loss({}, {"x0": X, "label": labels}, jax.random.key(1))
    noise_key = jax.random.split(jax.random.key(1), 4)[1]
    x = losses.add_noise(X, SCHEDULE, 0.4, noise_key).x
    log_prob = guidance.label_log_prob(net, SCHEDULE, table_index(1000), labels)(x, 0.4)
    assert -log_prob.mean() == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("k", [10, 500, 1000])
def test_classifier_guidance_is_the_shift_of_the_papers(k):
    """DDIM: eps - sigma grad, exactly. Ancestral: mean + beta grad, to first order in beta."""
    t, s, slope = k / 1000, (k - 1) / 1000, 0.37
    (alpha, sigma), post = SCHEDULE(t), posterior(SCHEDULE, t, s)

    def eps(x0):
        return (X - alpha * x0) / sigma

    plain = oracles.gaussian_denoiser(SCHEDULE, 0.0, STD)
    guided = guidance.classifier(plain, SCHEDULE, lambda x, t: slope * jnp.sum(x, axis=(1, 2, 3)), 1.0)
    before, after = plain(X, t).x0, guided(X, t).x0
    np.testing.assert_allclose(eps(after), eps(before) - sigma * slope, atol=1e-4)
    shift = np.float64(post.from_x0) * (np.float64(after) - np.float64(before))
    beta = float(post.large)
    np.testing.assert_allclose(shift, beta * slope, rtol=0.6 * beta + 1e-2)
    np.testing.assert_allclose(shift, beta * slope / np.sqrt(1 - beta), rtol=2e-3)


def large(x, t):
    return Denoised(jnp.array([[-3.0, 0.5, 2.0, 4.0], [0.1, -0.2, 0.3, -0.4]]), jnp.ones((2, 4)))


def test_clip_keeps_the_range_and_the_variance():
    denoised = guidance.clip_x0(large)(X, 0.5)
    np.testing.assert_allclose(denoised.x0, [[-1, 0.5, 1, 1], [0.1, -0.2, 0.3, -0.4]])
    np.testing.assert_allclose(guidance.clip_x0(large, -10.0, 3.0)(X, 0.5).x0[0], [-3, 0.5, 2, 3])
    np.testing.assert_array_equal(denoised.var_mix, 1)


@pytest.mark.parametrize(("percentile", "limit"), [(1.0, 4.0), (0.5, 2.5), (0.0, 1.0)])
def test_dynamic_threshold_looks_at_each_example(percentile, limit):
    """Of 0.5, 2, 3, 4 the median is 2.5; an example within [-1, 1] stays as it is."""
    denoised = guidance.dynamic_threshold(large, percentile)(X, 0.5)
    expected = np.clip(np.array([-3.0, 0.5, 2.0, 4.0]) / limit, -1, 1)
    np.testing.assert_allclose(denoised.x0, [expected, [0.1, -0.2, 0.3, -0.4]], rtol=1e-6)
    np.testing.assert_array_equal(denoised.var_mix, 1)


@pytest.mark.parametrize(("largest", "limit"), [(1.5, 1.5), (3.0, 2.5)])
def test_dynamic_threshold_goes_no_further_than_asked(largest, limit):
    denoised = guidance.dynamic_threshold(large, 0.5, largest)(X, 0.5)
    np.testing.assert_allclose(denoised.x0[0], np.clip(np.array([-3.0, 0.5, 2.0, 4.0]) / limit, -1, 1), rtol=1e-6)
    with pytest.raises(ValueError, match=r"largest=0\.5 must be 1 or more"):
        guidance.dynamic_threshold(large, 0.5, 0.5)


def test_percentile_is_a_fraction():
    with pytest.raises(ValueError, match=r"percentile=99\.5 must be between 0 and 1"):
        guidance.dynamic_threshold(large, 99.5)
