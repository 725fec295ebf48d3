import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, erfinv

from flaxgen.gan.controller import init_controller, update_controller

BATCH, IMAGES = 64, 100_000


def signs_mean(overfit, probability, noise):
    """E[sign D(real)] of a discriminator with normal logits, whose mean is how much it knows by heart, less what
    augmentation hides of it; estimated on a batch."""
    return jnp.clip(jax.scipy.special.erf(overfit - probability) + noise, -1, 1)


@jax.jit
def train(state, overfit, noises):
    """A run of len(noises) steps, and the probability after each."""

    def step(state, noise):
        signs = signs_mean(overfit, state.probability, noise)
        state = update_controller(state, signs, batch_size=BATCH, images=IMAGES)
        return state, state.probability

    return jax.lax.scan(step, state, noises)


def test_an_overfitting_discriminator_is_held_at_the_target():
    """Up to the p where the mean sign is 0.6, held there, and back to 0 when little is known by heart any more."""
    noise = 0.2 * jax.random.normal(jax.random.key(1), (2, 8000))
    knows_all = 1.2
    target = knows_all - float(erfinv(0.6))
    state, rising = train(init_controller(), knows_all, noise[0])
    assert float(rising[0]) == 0
    held = rising[-2000:]
    assert float(jnp.abs(held - target).max()) < 0.05
    assert erf(knows_all - float(held.mean())) == pytest.approx(0.6, abs=0.01)
    state, falling = train(state, 0.1, noise[1])
    assert float(falling[-1]) == 0
    assert float(falling.min()) == 0


def test_the_speed():
    """From 0 to 1 in so many images while all signs are 1, in a move every fourth step."""
    state, moves = init_controller(), []
    for _ in range(8):
        state = update_controller(state, jnp.ones(()), batch_size=32)
        moves.append(float(state.probability))
    step = 32 * 4 / 500_000
    np.testing.assert_allclose(moves, [0, 0, 0, step, step, step, step, 2 * step], rtol=1e-6)


def test_the_mean_of_an_interval_decides():
    """0.9, 0.9, 0.9, -0.9 have the mean 0.45, below the target."""
    state = init_controller(0.5)
    for signs in (0.9, 0.9, 0.9, -0.9):
        state = update_controller(state, jnp.asarray(signs), batch_size=50)
    assert float(state.probability) == pytest.approx(0.5 - 50 * 4 / 500_000, abs=1e-7)
    assert float(state.signs) == 0
    assert int(state.steps) == 0


def test_it_can_pass_one():
    """As in NVlabs' code: above 1 nothing more happens to pictures, but the way back is longer."""
    state = update_controller(init_controller(1.0), jnp.ones(()), batch_size=5, interval=1, images=10)
    assert float(state.probability) == 1.5


def test_a_step_without_number_is_passed_over():
    state = init_controller(0.5)
    for signs in (jnp.nan, 1.0, jnp.nan, 1.0):
        state = update_controller(state, jnp.asarray(signs), batch_size=50, interval=2)
    assert float(state.probability) == pytest.approx(0.5 + 50 * 2 / 500_000, abs=1e-7)
