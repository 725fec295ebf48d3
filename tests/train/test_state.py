"""One step on a toy: what it does beside following the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from codebook import CODES, TARGETS, WIDTH, codebook_training, no_decay

from flaxgen import parallel
from flaxgen.train.state import init_state, make_train_step, make_training
from flaxgen.types import Held, Seen


def test_parameters_are_brought_back_after_the_update_and_before_they_are_averaged():
    """CLIP's logit scale at its bound, which the gradient pushes beyond and, later, away from."""

    def loss(params, batch, keys):
        value = jnp.mean(batch["sign"]) * params["logit_scale"]
        return value, {"loss": value}

    init, make_step = make_training(
        lambda key: {"logit_scale": jnp.float32(4.5)},
        loss,
        optax.sgd(0.5),
        ema_decay=no_decay,
        after_update=lambda params, held: {"logit_scale": jnp.minimum(params["logit_scale"], 4.6)},
    )
    step, state, seen = jax.jit(make_step(None)), init(jax.random.key(0)), []
    for sign in (-1.0, -1.0, 1.0):
        state, _ = step(state, {"sign": jnp.full(4, sign)}, jax.random.key(1))
        assert state.params == state.ema_params
        seen.append(float(state.params["logit_scale"]))
    np.testing.assert_allclose(seen, [4.6, 4.6, 4.1], rtol=1e-6)


PLANS = {
    "jit": (parallel.jit_plan, 1),
    "in parts": (parallel.jit_plan, 4),
    "pmap": (parallel.pmap_plan, 1),
    "pmap in parts": (lambda: parallel.pmap_plan(4), 2),
    "mesh": (lambda: parallel.mesh_plan(data=4, fsdp=2), 1),
}


def by_hand(steps):
    """The same in float64, from the whole batch."""
    rotation, shift = np.array([[0.6, 0.8], [-0.8, 0.6]]), np.zeros(WIDTH)
    counts, sums = np.ones(CODES), np.eye(CODES, WIDTH)
    for _ in range(steps):
        z, codes = TARGETS.astype(np.float64) @ rotation + shift, sums / counts[:, None]
        nearest = np.argmin(((z[:, None] - codes[None]) ** 2).sum(-1), 1)
        counts = 0.9 * counts + 0.1 * np.bincount(nearest, minlength=CODES)
        sums = 0.9 * sums + 0.1 * np.stack([z[nearest == k].sum(0) for k in range(CODES)])
        shift = shift - 0.1 * 2 * (z - codes[nearest]).sum(0) / z.size
    return {"counts": counts, "sums": sums}, shift


@pytest.mark.parametrize("name", PLANS)
def test_statistics_are_those_of_the_whole_batch_and_frozen_weights_stay(name):
    """On any number of devices and in any number of parts."""
    make_plan, accumulate = PLANS[name]
    plan = make_plan()
    init, make_step = codebook_training(accumulate)
    step, state = plan.compile_step(make_step), plan.place_state(init(jax.random.key(0)))
    for _ in range(5):
        state, metrics = step(state, plan.place_batch({"x": TARGETS}), jax.random.key(1))
    assert metrics.keys() == {"loss", "grad_norm"}
    state = jax.device_get(plan.single(state))
    statistics, shift = by_hand(5)
    for field, expected in statistics.items():
        np.testing.assert_allclose(state.held.statistics[field], expected, rtol=1e-5)
    np.testing.assert_allclose(state.params["shift"], shift, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        state.held.frozen["map"], codebook_training(1)[0](jax.random.key(0)).held.frozen["map"]
    )


def test_frozen_weights_are_not_given_away_and_neither_optimised_nor_averaged():
    """A step is given its state for good, and the arrays may have another owner."""
    ours = {"map": jnp.ones((4, WIDTH))}

    def loss(params, batch, keys, held):
        value = jnp.mean((batch["x"] @ held.frozen["map"] - params["shift"][None]) ** 2)
        return value, {"loss": value}

    init, make_step = make_training(
        lambda key: {"shift": jnp.zeros(WIDTH)}, loss, optax.adam(0.1), ema_decay=no_decay,
        init_held=lambda key, params: Held(frozen=ours),
    )  # fmt: skip
    plan = parallel.jit_plan()
    state = plan.place_state(init(jax.random.key(0)))
    assert {x.shape for x in jax.tree.leaves((state.params, state.ema_params, state.opt_state))} == {(), (WIDTH,)}
    state, _ = plan.compile_step(make_step)(state, {"x": jnp.ones((8, 4))}, jax.random.key(1))
    np.testing.assert_array_equal(state.held.frozen["map"], ours["map"])


def test_a_loss_that_changes_its_statistics_is_an_error():
    def loss(params, batch, keys, held):
        return jnp.sum(params**2), Seen({}, {"mean": jnp.zeros(3)})

    init, make_step = make_training(
        lambda key: jnp.ones(2), loss, optax.sgd(0.1), ema_decay=no_decay,
        init_held=lambda key, params: Held({"mean": jnp.zeros(2)}),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"shape=\(2,\).* into .*shape=\(3,\)"):
        make_step(None)(init(jax.random.key(0)), {"x": jnp.ones(4)}, jax.random.key(1))


def test_a_state_in_a_notebook_is_one_line():
    state = init_state({"w": jnp.zeros((1000, 3)), "b": jnp.zeros(2)}, optax.adam(1e-3))
    assert repr(state) == "TrainState(step=0, 3,002 parameters)"
    assert repr(jax.eval_shape(lambda: state)).endswith("3,002 parameters)")


def test_what_holds_nothing_takes_a_loss_of_three_arguments():
    state = init_state({"w": jnp.ones(2)}, optax.sgd(0.1))
    assert state.held == Held()
    step = make_train_step(lambda params, batch, keys: (jnp.sum(params["w"]), {}), optax.sgd(0.1), ema_decay=no_decay)
    state, _ = step(state, {"x": jnp.ones(4)}, jax.random.key(1))
    np.testing.assert_allclose(state.params["w"], 0.9)
