import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit

from flaxgen.gan.losses import LOSSES

REAL = np.array([-3.0, -0.4, 0.0, 1.7, 40.0])
FAKE = np.array([2.0, 0.3, -1.0, -60.0, 0.9])
GRID = (np.array([0.05, 0.2, 0.4, 0.35]), np.array([0.3, 0.3, 0.25, 0.15]))
"""A distribution of data, and one of what is generated, on four points."""


def log(x):
    """Where a probability rounds to 0, log of the smallest number instead: only -log sigmoid(-60) needs more."""
    return np.log(np.maximum(x, 1e-300))


CLOSED = {
    "minimax": (
        lambda r, f: -np.mean(log(expit(r))) - np.mean(log(expit(-f))),
        lambda r, f: np.mean(log(expit(-f))),
    ),
    "non_saturating": (
        lambda r, f: -np.mean(log(expit(r))) - np.mean(log(expit(-f))),
        lambda r, f: -np.mean(log(expit(f))),
    ),
    "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "hinge": (
        lambda r, f: np.mean(np.clip(1 - r, 0, None)) + np.mean(np.clip(1 + f, 0, None)),
        lambda r, f: -f.mean(),
    ),
    "least_squares": (
        lambda r, f: np.mean((r - 1) ** 2) / 2 + np.mean(f**2) / 2,
        lambda r, f: np.mean((f - 1) ** 2) / 2,
    ),
    "relativistic": (lambda r, f: -np.mean(log(expit(r - f))), lambda r, f: -np.mean(log(expit(f - r)))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_closed_forms(name):
    real, fake = jnp.asarray(REAL, jnp.float32), jnp.asarray(FAKE, jnp.float32)
    for ours, closed in zip(LOSSES[name], CLOSED[name], strict=True):
        np.testing.assert_allclose(ours(real, fake), closed(REAL, FAKE), rtol=1e-6)
        assert np.isfinite(jax.grad(ours, argnums=(0, 1))(1e4 * real, 1e4 * fake)).all()


def best_logits(name: str, data, generated) -> np.ndarray:
    """Logits on the four points that minimise the discriminator's loss, found numerically.

    The expectation over both distributions is a mean over points drawn in proportion, 20 of each.
    """
    real, fake = (np.repeat(np.arange(4), np.round(20 * p).astype(int)) for p in (data, generated))
    loss = LOSSES[name].discriminator

    @jax.jit
    def objective(logits):
        return jax.value_and_grad(lambda x: loss(x[real], x[fake]))(logits)

    found = scipy.optimize.minimize(
        lambda x: [np.asarray(v, float) for v in objective(jnp.asarray(x, jnp.float32))], np.zeros(4), jac=True
    )
    return found.x


@pytest.mark.parametrize("name", ["minimax", "least_squares"])
def test_the_best_discriminator(name):
    """p / (p + q) [Goodfellow14, prop. 1], and of least squares too, by its targets 1 and 0 [Mao17, eq. 5]."""
    data, generated = GRID
    logits = best_logits(name, data, generated)
    share = logits if name == "least_squares" else expit(logits)
    np.testing.assert_allclose(share, data / (data + generated), atol=2e-3)


def test_the_value_of_the_game():
    """At the best discriminator -loss is 2 JSD - 2 log 2 [Goodfellow14, eq. 6]."""
    p, q = GRID
    real, fake = (np.repeat(np.arange(4), np.round(20 * x).astype(int)) for x in GRID)
    logits = jnp.asarray(np.log(p / q), jnp.float32)
    divergence = (p @ np.log(2 * p / (p + q)) + q @ np.log(2 * q / (p + q))) / 2
    loss = LOSSES["minimax"].discriminator(logits[real], logits[fake])
    assert -float(loss) == pytest.approx(2 * divergence - 2 * np.log(2), abs=1e-6)


def test_the_best_hinge_discriminator_is_the_sign():
    """[Lim17]: 1 where data is likelier, -1 where it is not; convex, so no neighbour is better."""
    p, q = GRID
    real, fake = (np.repeat(np.arange(4), np.round(20 * x).astype(int)) for x in GRID)

    def loss(logits):
        logits = jnp.asarray(logits, jnp.float32)
        return float(LOSSES["hinge"].discriminator(logits[real], logits[fake]))

    best = np.sign(p - q)
    assert loss(best) == pytest.approx(2 * np.minimum(p, q).sum(), abs=1e-6)
    for point in range(4):
        for move in (-0.1, 0.1):
            assert loss(best + move * np.eye(4)[point]) > loss(best) + 1e-4


def test_the_game_stands_where_the_two_are_alike():
    """Equal logits leave the relativistic losses at log 2, and no generator gains by moving all logits alike."""
    logits = jnp.asarray(REAL, jnp.float32)
    relativistic = LOSSES["relativistic"]
    for loss in relativistic:
        assert float(loss(logits, logits)) == pytest.approx(np.log(2), abs=1e-6)
        shifted = jax.grad(lambda c, loss=loss: loss(logits + c, logits + c))(0.0)
        assert float(shifted) == pytest.approx(0, abs=1e-6)


def test_the_generator_stalls_in_the_original_game_alone():
    """Where the discriminator is sure of fakes, its gradient vanishes; the other is -1 [Goodfellow14, sec. 3]."""
    sure = jnp.full(5, -20.0)
    slopes = {
        name: float(jnp.sum(jax.grad(LOSSES[name].generator, argnums=1)(sure, sure)))
        for name in ("minimax", "non_saturating")
    }
    assert abs(slopes["minimax"]) < 1e-6
    assert slopes["non_saturating"] == pytest.approx(-1, abs=1e-6)
