import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from flaxgen.data import unit_range
from flaxgen.diffusion import losses, schedules, vlb, weighting
from flaxgen.diffusion.denoise import EPS, PREDICTIONS, make_bind, quarter_log_sigma, table_index
from flaxgen.family.batches import Drop, read_batch
from flaxgen.types import Denoised

T, STD = 20, 0.5
SCHEDULE = schedules.cosine(T)
WEIGHTS = {"simple": weighting.simple, "min_snr": weighting.min_snr()}
POINTS = read_batch("points")


def best_output(prediction, schedule=SCHEDULE, std=STD, timesteps=T):
    """The net that is best for x0 ~ N(0, std^2); `params` is added to what it says."""

    def apply(params, x, time, condition, dropout_key):
        alpha, sigma = schedule((time[0] + 1) / timesteps)
        x = x / prediction.scale_in(alpha, sigma)
        x0 = alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x
        return prediction.target(x0, (x - alpha * x0) / sigma, alpha, sigma) + params

    return apply


def make_loss(apply, prediction, objective, inputs=POINTS, sample_time=None):
    return losses.denoising_loss(
        apply,
        SCHEDULE,
        prediction,
        table_index(T),
        sample_time=sample_time or weighting.table_time(T),
        objective=objective,
        inputs=inputs,
    )


@pytest.fixture(scope="module")
def points():
    return {"points": STD * jax.random.normal(jax.random.key(7), (8192, 4))}


def keys(count):
    return jax.random.split(jax.random.key(1), count)


def test_loss_of_the_best_net_is_its_expectation(points):
    """The squared error of x0 given x_t is its posterior variance; gain and weight turn it into the loss. For all
    predictions and weights, on the same noise."""

    @jax.jit
    def found_and_expected(x0, keys):
        def draw(x, key):
            time_key, noise_key = jax.random.split(key)
            return losses.add_noise(x[None], SCHEDULE, weighting.table_time(T)(time_key), noise_key)

        noised = jax.vmap(draw)(x0, keys)
        alpha, sigma = jax.vmap(SCHEDULE)(jnp.arange(1, T + 1) / T)
        variance = STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)
        results = {}
        for (name, prediction), (weight_name, weight) in itertools.product(PREDICTIONS.items(), WEIGHTS.items()):
            objective, apply = losses.weighted_mse(prediction, weight), best_output(prediction)

            def value(noised, prediction=prediction, apply=apply, objective=objective):
                x = prediction.scale_in(noised.alpha, noised.sigma) * noised.x
                return objective(apply(0.0, x, (noised.t * T - 1)[None], {}, None), noised)

            loss, metrics = jax.tree.map(jnp.mean, jax.vmap(value)(noised))
            mse = jax.vmap(prediction.gain)(alpha, sigma) ** 2 * variance
            weights = jax.vmap(weight, (None, 0, 0))(prediction, alpha, sigma)
            results[name, weight_name] = (loss, metrics["mse"], jnp.mean(weights * mse), jnp.mean(mse))
        return results

    for name, (loss, mse, exact_loss, exact_mse) in found_and_expected(points["points"], keys(8192)).items():
        assert loss == pytest.approx(float(exact_loss), rel=0.05), name
        assert mse == pytest.approx(float(exact_mse), rel=0.05), name


def test_the_best_net_is_where_the_gradient_vanishes(points):
    """Through the whole loss, every part of it in place."""
    prediction = PREDICTIONS["v"]
    loss = losses.per_example(
        make_loss(best_output(prediction), prediction, losses.weighted_mse(prediction, weighting.simple))
    )
    grad = jax.jit(jax.grad(loss, has_aux=True))
    assert abs(grad(0.0, points, keys(8192))[0]) < 0.02
    at_half, metrics = grad(0.5, points, keys(8192))
    assert at_half == pytest.approx(1.0, abs=0.02)
    assert metrics["loss"] == metrics["mse"]


def test_every_example_has_a_time_and_noise_of_its_own(points):
    """The mean over a batch is the mean over its parts, in any order: what accumulation and devices rely on."""
    loss = make_loss(best_output(EPS), EPS, losses.weighted_mse(EPS, weighting.simple))
    x, order = points["points"][:4], jnp.array([2, 0, 3, 1])

    @jax.jit
    def batch_mean(order):
        return losses.per_example(loss)(0.1, {"points": x[order]}, keys(4)[order])[0]

    @jax.jit
    def alone():
        return [loss(0.1, {"points": x[i : i + 1]}, keys(4)[i])[0] for i in range(4)]

    whole, parts = batch_mean(jnp.arange(4)), alone()
    assert len(set(map(float, parts))) == 4
    assert whole == pytest.approx(np.mean(parts), rel=1e-6)
    assert whole == pytest.approx(float(batch_mean(order)), rel=1e-6)


def two_parts(params, x, time, condition, dropout_key):
    mean = best_output(EPS)(params["mean"], x, time, condition, dropout_key)
    return jnp.concatenate([mean, jnp.broadcast_to(params["variance"], mean.shape)], axis=-1)


def first_part(params, x, time, condition, dropout_key):
    return best_output(EPS)(params["mean"], x, time, condition, dropout_key)


PARAMS = {"mean": jnp.float32(0.2), "variance": jnp.float32(-0.3)}


@pytest.fixture(scope="module")
def learned_gradients(points):
    objectives = {
        "hybrid": (losses.hybrid(SCHEDULE, EPS, T, bound_weight=0.01), two_parts),
        "variational": (losses.variational(SCHEDULE, EPS, T, "learned"), two_parts),
        "simple": (losses.weighted_mse(EPS, weighting.simple), first_part),
    }

    @jax.jit
    def gradients(batch):
        return {
            name: jax.value_and_grad(losses.per_example(make_loss(apply, EPS, objective)), has_aux=True)(
                PARAMS, batch, keys(64)
            )
            for name, (objective, apply) in objectives.items()
        }

    return gradients({"points": points["points"][:64]})


def test_hybrid_moves_the_mean_as_simple_and_the_variance_as_the_bound(learned_gradients):
    (value, metrics), grads = learned_gradients["hybrid"]
    (bound, bound_metrics), bound_grads = learned_gradients["variational"]
    (simple, _), simple_grads = learned_gradients["simple"]
    assert grads["mean"] == pytest.approx(float(simple_grads["mean"]), rel=1e-5)
    assert grads["variance"] == pytest.approx(0.01 * float(bound_grads["variance"]), rel=1e-4)
    assert abs(bound_grads["mean"]) > 0.1
    assert value == pytest.approx(float(simple + 0.01 * bound), rel=1e-5)
    assert metrics["vb"] == pytest.approx(float(bound), rel=1e-5)
    assert metrics["mse"] == bound_metrics["mse"] == pytest.approx(float(simple), rel=1e-5)


def test_variational_loss_estimates_the_bound(points):
    """T times a random term against the sum of all terms, of 8-bit values."""
    values = jnp.round(points["points"] * 127.5 + 127.5).clip(0, 255) / 127.5 - 1
    apply = best_output(EPS)
    denoise = make_bind(lambda x, time, told: apply(0.0, x, time, told, None), SCHEDULE, EPS, table_index(T))({})

    @jax.jit
    def loss_and_bound(x0):
        def both(variance):
            loss = losses.per_example(make_loss(apply, EPS, losses.variational(SCHEDULE, EPS, T, variance)))
            bound = vlb.bits_per_dim(denoise, SCHEDULE, x0, T, variance, jax.random.key(3))
            return loss(0.0, {"points": x0}, keys(8192))[0], bound

        return both("small"), both("large")

    for value, bound in loss_and_bound(values):
        spread = float(np.std(bound.terms)) * T / np.sqrt(8192)
        assert value == pytest.approx(float((bound.total - bound.prior).mean()), abs=5 * spread)


def test_the_last_step_ends_at_clean_data():
    """From t = 1/T the term is the likelihood of the pixels, from later ones a divergence."""
    x0 = jnp.array([[0.2]])

    @jax.jit
    def both(t, s):
        noised = losses.add_noise(x0, SCHEDULE, t, jax.random.key(0))
        right = Denoised(x0 + 0.1)
        term = vlb.bound_term(right, x0, noised.x, (t, s), SCHEDULE, "small")
        return losses.mean_bound_term(right, noised, SCHEDULE, T, "small"), term[0]

    for t, s in ((1 / T, 0.0), (2 / T, 1 / T), (1.0, 1 - 1 / T)):
        found, expected = both(t, s)
        assert found == pytest.approx(float(expected), rel=1e-4)


def test_edm_loss_and_gradient_are_finite_at_both_ends():
    """In low precision, through the logarithm that the net is told, on every schedule."""
    prediction = PREDICTIONS["edm"]

    def apply(params, x, time, condition, dropout_key):
        return (params * x + jnp.sin(time)[:, None]).astype(jnp.bfloat16)

    @jax.jit
    def values_and_gradients(times):
        def at(schedule, t):
            loss = losses.denoising_loss(
                apply,
                schedule,
                prediction,
                quarter_log_sigma,
                sample_time=lambda key: t,
                objective=losses.weighted_mse(prediction, weighting.edm()),
                inputs=POINTS,
            )
            (value, _), grad = jax.value_and_grad(loss, has_aux=True)(
                0.3, {"points": jnp.ones((1, 2))}, jax.random.key(0)
            )
            return value, grad

        paths = {name: make(0) for name, make in schedules.SCHEDULES.items()}
        return {name: jax.vmap(lambda t, path=path: at(path, t))(times) for name, path in paths.items()}

    for name, (value, grad) in values_and_gradients(jnp.array([0.0, 1e-7, 1.0])).items():
        assert value.dtype == jnp.float32
        assert np.isfinite([value, grad]).all(), name


# What of a batch goes where

BATCH = {
    "image": jnp.array([[[[0, 51, 255]]]], jnp.uint8),
    "label": jnp.array([3]),
    "tokens": jnp.ones((1, 4, 2)),
    "mask": jnp.ones((1, 4), bool),
}
NO_LABEL = Drop(0.3, {"label": jnp.array([10])})
NO_TEXT = Drop(0.6, {"tokens": jnp.zeros((1, 4, 2)), "mask": jnp.zeros((1, 4), bool)})


def test_pixels_become_the_unit_range_and_points_stay():
    x0, told = read_batch()(BATCH, jax.random.key(0))
    np.testing.assert_allclose(x0[0, 0, 0], [-1, -0.6, 1], atol=1e-6)
    assert told == {}
    points = jnp.array([[-3.5, 200.0]], jnp.float16)
    np.testing.assert_array_equal(unit_range(points), points.astype(jnp.float32))


def test_drops_replace_whole_groups_as_often_as_asked_and_apart():
    inputs = read_batch("image", ("label", "tokens", "mask"), (NO_LABEL, NO_TEXT))
    _, told = jax.jit(jax.vmap(lambda key: inputs(BATCH, key)))(keys(4096))
    assert told["label"].dtype == BATCH["label"].dtype
    assert told["mask"].dtype == bool
    assert set(np.unique(told["label"])) == {3, 10}
    no_label, no_text = np.asarray(told["label"][:, 0] == 10), ~np.asarray(told["mask"][:, 0, 0])
    assert (told["mask"] == ~no_text[:, None, None]).all()
    assert (told["tokens"] == ~no_text[:, None, None, None]).all()
    assert no_label.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 4096))
    assert no_text.mean() == pytest.approx(0.6, abs=5 * np.sqrt(0.24 / 4096))
    assert (no_label & no_text).mean() == pytest.approx(0.18, abs=5 * np.sqrt(0.15 / 4096))


def test_drops_never_and_always():
    @jax.jit
    def labels(keys):
        never, always = (
            read_batch("image", ("label",), (Drop(probability, NO_LABEL.null),)) for probability in (0.0, 1.0)
        )
        return jax.vmap(lambda key: [inputs(BATCH, key)[1]["label"] for inputs in (never, always)])(keys)

    never, always = labels(keys(256))
    assert (never == 3).all()
    assert (always == 10).all()


def test_the_net_is_told_the_condition_and_nothing_more():
    told = {}

    def apply(params, x, time, condition, dropout_key):
        told.update(condition, x=x, key=dropout_key)
        return jnp.zeros_like(x)

    loss = make_loss(apply, EPS, losses.weighted_mse(EPS, weighting.simple), read_batch("image", ("label",)))
    _, metrics = jax.eval_shape(loss, 0.0, BATCH, jax.random.key(0))
    assert set(told) == {"label", "x", "key"}
    assert told["x"].shape == (1, 1, 1, 3)
    assert jnp.issubdtype(told["key"].dtype, jax.dtypes.prng_key)
    assert set(metrics) == {"loss", "mse"}


def shapes_of(loss, params):
    return jax.eval_shape(loss, params, {"points": jnp.ones((1, 2))}, jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.hybrid(SCHEDULE, EPS, 0), "timesteps=0 must be at least 1 for the variational bound"),
        (lambda: losses.variational(SCHEDULE, EPS, -1, "small"), "timesteps=-1 must be at least 1"),
        (lambda: weighting.table_time(0), "timesteps=0 has no table to draw times from"),
        (lambda: read_batch(drops=(Drop(1.5, {}),)), "probability=1.5 must be between 0 and 1"),
        (lambda: read_batch("image", ("text",), (NO_LABEL,)), r"\['label'\] drops no field .*\['text'\]"),
        (
            lambda: make_loss(two_parts, EPS, losses.weighted_mse(EPS, weighting.simple))(
                PARAMS, {"points": jnp.ones((1, 2))}, jax.random.key(0)
            ),
            r"puts out \(4,\) where this objective takes \(2,\): a learned variance needs",
        ),
        (
            lambda: make_loss(best_output(EPS), EPS, losses.hybrid(SCHEDULE, EPS, T))(
                0.0, {"points": jnp.ones((1, 2))}, jax.random.key(0)
            ),
            r"puts out \(2,\) where this objective takes \(4,\): a learned variance needs",
        ),
    ],
)
def test_errors_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The noisy classifier


def test_classification_loss_of_the_best_classifier_is_its_expectation():
    """Two classes at +-0.6, each of standard deviation STD: the logit of x_t is linear, the rest a quadrature."""
    t, place = 0.3, 0.6
    alpha, sigma = (float(value) for value in SCHEDULE(t))
    spread = np.sqrt(alpha**2 * STD**2 + sigma**2)

    def apply(params, x, time, condition, dropout_key):
        assert condition == {}
        logit = params * 2 * alpha * place / spread**2 * x[:, 0]
        return jnp.stack([jnp.zeros_like(logit), logit], axis=-1)

    loss = losses.per_example(
        losses.classification_loss(
            apply,
            SCHEDULE,
            table_index(T),
            sample_time=lambda key: jnp.float32(t),
            inputs=read_batch("points", ("label",)),
        )
    )
    label = jnp.arange(16384) % 2
    points = (2 * label - 1)[:, None] * place + STD * jax.random.normal(jax.random.key(0), (16384, 1))
    (value, metrics), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        1.0, {"points": points, "label": label}, keys(16384)
    )
    x, step = np.linspace(alpha * place - 8 * spread, alpha * place + 8 * spread, 4001, retstep=True)
    cross_entropy = np.logaddexp(0, -2 * alpha * place / spread**2 * x)
    expected = np.sum(norm.pdf(x, alpha * place, spread) * cross_entropy) * step
    assert value == metrics["loss"] == pytest.approx(expected, rel=0.03)
    assert metrics["accuracy"] == pytest.approx(norm.cdf(alpha * place / spread), abs=0.02)
    assert abs(grad) < 0.02


def test_offset_noise_is_white_noise_and_a_constant_for_each_channel():
    """The deviation of a channel's mean over n pixels is sqrt(offset^2 + 1 / n), that of pixels around it 1."""
    x0 = jnp.zeros((4096, 4, 4, 2))
    eps = losses.add_noise(x0, SCHEDULE, 0.5, jax.random.key(0), offset=0.5).eps
    means = eps.mean((1, 2))
    np.testing.assert_allclose(means.std(0), np.sqrt(0.25 + 1 / 16), rtol=0.03)
    np.testing.assert_allclose(jnp.corrcoef(means.T)[0, 1], 0, atol=0.05)
    np.testing.assert_allclose((eps - means[:, None, None]).std(), np.sqrt(15 / 16), rtol=0.01)
