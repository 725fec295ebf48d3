import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen.gan import regularize
from flaxgen.parallel import example_keys

SHAPE = (4, 5, 3)
RANDOM = np.random.default_rng(3)
WEIGHT = RANDOM.normal(size=SHAPE)
MATRIX = RANDOM.normal(size=SHAPE) / 4
REAL, FAKE = (jnp.asarray(RANDOM.normal(size=(6, *SHAPE)), jnp.float32) for _ in range(2))


def keys():
    """The same ones every time, and each time fresh."""
    return example_keys(jax.random.key(5), 6)


def critic(weight):
    return lambda x: jnp.tensordot(x, jnp.asarray(weight, jnp.float32), 3) + 2


def quadratic(x):
    return jnp.sum(jnp.asarray(MATRIX, jnp.float32)[None] * x**2, axis=(1, 2, 3))


def test_r1_of_a_linear_net():
    """|w|^2 wherever it is asked for; gamma / 2 is not in it."""
    np.testing.assert_allclose(regularize.r1(critic(WEIGHT), REAL), (WEIGHT**2).sum(), rtol=1e-5)


def test_r1_is_a_mean_over_examples():
    """Of a quadratic net: grad = 2 a x."""
    expected = ((2 * MATRIX * np.asarray(REAL)) ** 2).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(regularize.r1(quadratic, REAL), expected, rtol=1e-5)


def test_r1_trains_the_net():
    """Its gradient after the weights, by differentiating twice: 2 w."""
    gradient = jax.grad(lambda w: regularize.r1(critic(w), REAL))(jnp.asarray(WEIGHT, jnp.float32))
    np.testing.assert_allclose(gradient, 2 * WEIGHT, rtol=1e-5)


def test_gradient_penalty_of_a_linear_net():
    norm = np.sqrt((WEIGHT**2).sum())
    penalty = regularize.gradient_penalty(critic(WEIGHT), REAL, FAKE, keys())
    np.testing.assert_allclose(penalty, (norm - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(regularize.gradient_penalty(critic(WEIGHT / norm), REAL, FAKE, keys()), 0, atol=1e-10)


def test_gradient_penalty_is_taken_between_the_pairs():
    """Where |grad| of sum x^2 / 2 is |x|: real is 0, fake a unit vector, so |x| - 1 is -share, uniform in [-1, 0]."""
    unit = jnp.zeros((4096, 2, 1, 1)).at[:, 0].set(1.0)
    keys = example_keys(jax.random.key(8), 4096)
    penalty = regularize.gradient_penalty(lambda x: jnp.sum(x**2, axis=(1, 2, 3)) / 2, 0 * unit, unit, keys)
    assert float(penalty) == pytest.approx(1 / 3, abs=0.015)


def test_a_critic_of_zeros_can_start():
    """|w| has no gradient at 0; the penalty is (0 - 1)^2 and its gradient is finite."""
    value, gradient = jax.value_and_grad(lambda w: regularize.gradient_penalty(critic(w), REAL, FAKE, keys()))(
        jnp.zeros(SHAPE)
    )
    assert float(value) == 1
    np.testing.assert_array_equal(gradient, np.zeros(SHAPE))


def linear_synthesis(jacobian):
    """[L D H W C] to the images J w."""
    return lambda w: jnp.tensordot(w, jnp.asarray(jacobian, jnp.float32), 2)


def test_path_lengths_of_a_linear_synthesis():
    """|J^T y|, with the y that the keys draw."""
    layers, width = 2, 7
    jacobian = RANDOM.normal(size=(layers, width, *SHAPE))
    w = jnp.asarray(RANDOM.normal(size=(6, layers, width)), jnp.float32)
    noise = np.stack([jax.random.normal(key, SHAPE) for key in keys()]) / np.sqrt(SHAPE[0] * SHAPE[1])
    pulled = np.einsum("ldhwc,bhwc->bld", jacobian, noise.astype(float))
    lengths = regularize.path_lengths(linear_synthesis(jacobian), w, keys())
    np.testing.assert_allclose(lengths, np.sqrt((pulled**2).sum(axis=2).mean(axis=1)), rtol=1e-5)


def test_path_lengths_measure_the_jacobian():
    """E |J^T y|^2 = |J|_F^2 / (H W) [Karras20, app. C]: with an image the size of w and J = s I, s^2 a channel."""
    side, scale, count = 8, 3.0, 2048
    lengths = regularize.path_lengths(
        lambda w: scale * w.reshape(-1, side, side, 1),
        jnp.ones((count, 1, side**2)),
        example_keys(jax.random.key(2), count),
    )
    assert float(jnp.mean(lengths**2)) == pytest.approx(scale**2, rel=0.02)


def test_a_synthesis_of_one_colour_can_start():
    value, gradient = jax.value_and_grad(
        lambda j: regularize.path_length_penalty(
            regularize.path_lengths(linear_synthesis(j), jnp.ones((6, 1, 2)), keys()), 1.0
        )
    )(jnp.zeros((1, 2, *SHAPE)))
    assert float(value) == 1
    assert np.isfinite(gradient).all()


def test_path_length_penalty_and_its_mean():
    lengths = jnp.array([1.0, 3.0, 5.0])
    np.testing.assert_allclose(regularize.path_length_penalty(lengths, 2.0), (1 + 1 + 9) / 3, rtol=1e-6)
    mean = 0.0
    for _ in range(400):
        mean = regularize.path_length_mean(mean, jnp.mean(lengths))
    np.testing.assert_allclose(mean, 3 * (1 - 0.99**400), rtol=1e-4)


@pytest.mark.parametrize("interval", [4, 16])
def test_lazy_adam_moves_as_far_as_adam(interval):
    """On a constant gradient Adam moves by its rate a step: interval steps, and one more for the penalty, are as far as
    interval steps were."""

    def walk(tx, steps):
        x = jnp.zeros(2)
        state = tx.init(x)
        for _ in range(steps):
            updates, state = tx.update(jnp.array([1.0, -2.0]), state)
            x = optax.apply_updates(x, updates)
        return x

    lazy = walk(regularize.lazy_adam(0.002, 0.0, 0.99, interval), interval + 1)
    np.testing.assert_allclose(lazy, walk(regularize.lazy_adam(0.002, 0.0, 0.99, None), interval), rtol=1e-5)


def test_lazy_adam_forgets_as_fast_as_adam():
    """After k + 1 lazy steps without gradient, the first moment is what k plain ones leave."""
    moments = []
    for interval, steps in ((4, 5), (None, 4)):
        tx = regularize.lazy_adam(optax.constant_schedule(0.002), 0.9, 0.99, interval)
        _, state = tx.update(jnp.ones(()), tx.init(jnp.zeros(())))
        first = state[0].mu
        for _ in range(steps):
            _, state = tx.update(jnp.zeros(()), state)
        moments.append(float(state[0].mu / first))
    assert moments[0] == pytest.approx(moments[1], rel=1e-5)
    assert moments[1] == pytest.approx(0.9**4, rel=1e-5)


def test_a_schedule_is_scaled_too():
    lazy, plain = (
        regularize.lazy_adam(optax.linear_schedule(0.1, 0.0, 10), 0.0, 0.99, interval) for interval in (4, None)
    )
    (slow, _), (fast, _) = (tx.update(jnp.ones(()), tx.init(jnp.zeros(()))) for tx in (lazy, plain))
    assert float(slow / fast) == pytest.approx(4 / 5, rel=1e-5)


def test_an_interval_below_one():
    with pytest.raises(ValueError, match="interval=0: expected 1 or more steps"):
        regularize.lazy_adam(0.002, 0.0, 0.99, 0)
