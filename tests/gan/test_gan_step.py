"""One step of a game: the same on any number of devices, lazy where it says so, and safe from what is no number."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen import parallel
from flaxgen.gan.controller import update_controller
from flaxgen.gan.losses import LOSSES
from flaxgen.gan.regularize import gradient_penalty, lazy_adam, r1
from flaxgen.gan.state import Game, Halves, PathLength, Rules, half_life, make_init
from flaxgen.gan.step import make_train_step
from flaxgen.train import loop
from flaxgen.train.run import Run
from flaxgen.types import Experiment

Z, LAYERS, WIDTH, CLASSES, IMAGE = 3, 2, 4, 2, (4, 4, 3)
BATCH, STEPS = 32, 4
PLANS = {
    "jit": parallel.jit_plan,
    "pmap": parallel.pmap_plan,
    "mesh 4x2": lambda: parallel.mesh_plan(data=4, fsdp=2),
}


def split(keys, num):
    return jax.vmap(lambda key: tuple(jax.random.split(key, num)))(keys)


def fresh_variables(key):
    """A generator of two layers with a running mean of w and a constant, and a discriminator with a counter."""
    keys = iter(jax.random.split(key, 6))
    pixels = math.prod(IMAGE)
    generator = {
        "params": {
            "map": jax.random.normal(next(keys), (Z, WIDTH)),
            "label": jax.random.normal(next(keys), (CLASSES, WIDTH)),
            "out": 0.3 * jax.random.normal(next(keys), (LAYERS * WIDTH, pixels)),
        },
        "buffers": {"w_avg": jnp.zeros(WIDTH), "constant": jax.random.normal(next(keys), (pixels,))},
    }
    discriminator = {
        "params": {
            "in": 0.3 * jax.random.normal(next(keys), (pixels, 8)),
            "out": jax.random.normal(next(keys), (9, CLASSES)),
        },
        "seen": {"mean": jnp.zeros(IMAGE)},
    }
    return generator, discriminator


def map_w(variables, z, label, keys=None):
    params = variables["params"]
    w = jnp.tanh(z @ params["map"] + params["label"][label])
    w = jnp.repeat(w[:, None], LAYERS, axis=1)
    return w if keys is None else w + 0.1 * jax.vmap(lambda key: jax.random.normal(key, (LAYERS, WIDTH)))(keys)


def synthesize(variables, w, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (math.prod(IMAGE),)))(keys)
    flat = w.reshape(len(w), -1) @ variables["params"]["out"] + variables["buffers"]["constant"][None]
    return jnp.tanh(flat + 0.1 * noise).reshape(-1, *IMAGE)


def make_game(axis_name=None):
    """With a discriminator that looks at the whole batch, as minibatch standard deviation does."""

    def generate(variables, z, label, keys):
        map_keys, noise_keys = split(keys, 2)
        return synthesize(variables, map_w(variables, z, label, map_keys), noise_keys)

    def discriminate(variables, images, label):
        features = jnp.tanh(images.reshape(len(images), -1) @ variables["params"]["in"])
        batch = features if axis_name is None else jax.lax.all_gather(features, axis_name, tiled=True)
        spread = jnp.sqrt(batch.var(0) + 1e-8).mean()
        features = jnp.concatenate([features, jnp.full((len(images), 1), spread)], axis=1)
        return jnp.take_along_axis(features @ variables["params"]["out"], label[:, None], axis=1)[:, 0]

    def track_generator(variables, z, label):
        w_avg = 0.9 * variables["buffers"]["w_avg"] + 0.1 * map_w(variables, z, label)[:, 0].mean(0)
        return {"buffers": {**variables["buffers"], "w_avg": w_avg}}

    return Game(
        read=lambda batch: (batch["image"], batch["label"]),
        latents=jax.vmap(lambda key: jax.random.normal(key, (Z,))),
        generate=generate,
        discriminate=discriminate,
        halves=Halves(map_w, synthesize),
        track_generator=track_generator,
        track_discriminator=lambda variables, images, label: {"seen": {"mean": images.mean(0)}},
    )


def shake(images, probability, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, IMAGE))(keys)
    return images + (0.1 + probability) * noise


def r1_penalty(critic, real, fake, keys):
    return r1(lambda x: critic(x, keys), real)


def line_penalty(critic, real, fake, keys):
    critic_keys, line_keys = split(keys, 2)
    return gradient_penalty(lambda x: critic(x, critic_keys), real, fake, line_keys)


def adam(interval=None):
    return lazy_adam(1e-2, 0.0, 0.99, interval, 1e-4)


LAZY = Rules(
    loss=LOSSES["relativistic"],
    generator_tx=adam(2),
    discriminator_tx=adam(2),
    ema_decay=half_life(100.0, 0.5, BATCH),
    penalty=r1_penalty,
    penalty_interval=2,
    path_length=PathLength(weight=2.0, interval=2),
    augment=shake,
    control=functools.partial(update_controller, batch_size=BATCH, target=-0.9, interval=2, images=500),
)
SEVERAL = Rules(
    loss=LOSSES["hinge"],
    generator_tx=adam(),
    discriminator_tx=adam(),
    ema_decay=half_life(100.0, 0.0, BATCH),
    d_steps=2,
    penalty=line_penalty,
)
RULES = {"lazy": LAZY, "several": SEVERAL}


def batch_of(step):
    rng = np.random.default_rng(step)
    image = rng.uniform(-1, 1, (BATCH, *IMAGE)).astype(np.float32)
    return {"image": image, "label": rng.integers(0, CLASSES, BATCH).astype(np.int32)}


def fresh_state(rules):
    return make_init(fresh_variables, rules)(jax.random.key(0))


@functools.cache
def played(name, plan):
    """The state after four steps of a plan, as one device would have it, and the metrics of each."""
    chosen = PLANS[plan]()
    step = chosen.compile_step(
        lambda axis_name: make_train_step(make_game(axis_name), RULES[name], axis_name=axis_name)
    )
    state, told = play(name, step, chosen.place_batch, chosen.place_state)
    return jax.device_get(chosen.single(state)), told


def play(name, step, place_batch, place_state):
    state, told = place_state(fresh_state(RULES[name])), []
    for number in range(STEPS):
        state, metrics = step(state, place_batch(batch_of(number)), jax.random.key(1))
        told.append(jax.device_get(metrics))
    return state, told


def differences(tree, reference):
    """Of every array, the distance over the norm of the reference."""
    named = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    pairs = zip(named, jax.tree.leaves(jax.device_get(reference)), strict=True)
    return {jax.tree_util.keystr(path): np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12) for (path, a), b in pairs}


def assert_same(ours, theirs):
    """Four steps, with both regularisers in the first and third, augmentation that grows, and running statistics."""
    errors = differences(ours[0], theirs[0])
    assert max(errors.values()) < 1e-5, max(errors.items(), key=lambda item: item[1])
    for told, expected in zip(ours[1], theirs[1], strict=True):
        assert told.keys() == expected.keys()
        for key, value in told.items():
            np.testing.assert_allclose(value, expected[key], rtol=2e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("lazy", "mesh 4x2"),
        pytest.param("lazy", "pmap", marks=pytest.mark.slow),
        pytest.param("several", "pmap", marks=pytest.mark.slow),
        pytest.param("several", "mesh 4x2", marks=pytest.mark.slow),
    ],
)
def test_many_devices_give_the_numbers_of_one(name, plan, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_SHARDED", 64)
    assert_same(played(name, plan), played(name, "jit"))


@pytest.mark.slow  # every operation is compiled by itself
@pytest.mark.parametrize("name", RULES)
def test_compiled_steps_give_the_numbers_of_the_bare_function(name):
    bare = play(
        name,
        make_train_step(make_game(), RULES[name]),
        lambda batch: jax.tree.map(jnp.asarray, batch),
        lambda state: state,
    )
    assert_same(played(name, "jit"), bare)


def test_everything_moves():
    """Otherwise the plans would agree on nothing."""
    (state, told), start = played("lazy", "jit"), fresh_state(LAZY)
    still = {".generator.variables['buffers']['constant']", ".ema_params['buffers']['constant']", ".nan_share"}
    still |= {".controller.signs", ".controller.steps"}
    moved = differences(start, state)
    assert {path for path, change in moved.items() if change < 1e-4} == still
    assert told[-1]["augment_probability"] == pytest.approx(2 * 2 * BATCH / 500)
    assert told[-1]["path_length"] > 0
    assert {"loss", "grad_norm", "diversity", "spread", "real_sign", "nan_share"} <= told[-1].keys()


def counts(player):
    """How many steps the optimizer of a player has made."""
    (count,) = optax.tree.get_all_with_path(player.opt_state, "count")[:1]
    return int(count[1])


def test_how_many_steps_each_player_makes():
    """A lazy penalty is a step more every second time; two parts of a batch are two steps of the discriminator."""
    lazy, _ = played("lazy", "jit")
    assert (counts(lazy.discriminator), counts(lazy.generator)) == (STEPS + 2, STEPS + 2)
    several, _ = played("several", "jit")
    assert (counts(several.discriminator), counts(several.generator)) == (2 * STEPS, STEPS)


@functools.cache
def compiled(rules):
    return jax.jit(make_train_step(make_game(), rules))


PLAIN = LAZY._replace(penalty=None, path_length=None)


def test_a_lazy_regulariser_that_is_not_due_changes_nothing():
    """The second step of LAZY is that of the same rules without regularisers."""
    before = fresh_state(LAZY)._replace(step=jnp.ones((), jnp.int32))
    (lazy, _), (plain, _) = (compiled(rules)(before, batch_of(1), jax.random.key(1)) for rules in (LAZY, PLAIN))
    assert max(differences(lazy, plain).values()) < 1e-6


def test_the_average_of_the_generator_forgets_by_half_lives():
    """Over `images` images decays multiply to a half; while fewer are seen the horizon is a share of them."""
    steady, ramped = half_life(1000.0, 0.0, 50), half_life(1000.0, 0.05, 50)
    total = math.prod(float(steady(jnp.asarray(step))) for step in range(20))
    assert total == pytest.approx(0.5, rel=1e-5)
    assert float(ramped(jnp.asarray(0))) == 0
    assert float(ramped(jnp.asarray(100))) == pytest.approx(0.5 ** (50 / (0.05 * 5000)), rel=1e-5)
    assert float(ramped(jnp.asarray(10_000))) == pytest.approx(float(steady(jnp.asarray(0))), rel=1e-6)
    assert float(half_life(0.0, 0.0, 50)(jnp.asarray(7))) == 0


def test_gradients_that_are_no_numbers_become_zero_and_are_counted():
    batch = batch_of(0)
    batch["image"][3, 0, 0, 0] = np.nan
    start = fresh_state(LAZY)
    state, metrics = compiled(LAZY)(start, batch, jax.random.key(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(state)))
    np.testing.assert_array_equal(
        state.discriminator.variables["params"]["in"], start.discriminator.variables["params"]["in"]
    )
    assert float(metrics["nan_share"]) == pytest.approx(1e-3, rel=1e-4)
    assert np.isfinite(float(metrics["grad_norm"]))
    assert np.isfinite(float(metrics["loss"]))


def test_a_run_of_them_is_stopped(tmp_path):
    def batches(start):
        for step in range(start, 100):
            batch = batch_of(step)
            batch["image"][0] = np.nan
            yield batch

    plan = parallel.make_plan("jit")._replace(compile_step=lambda make_step: compiled(LAZY))
    experiment = Experiment(
        make_init(fresh_variables, LAZY), lambda axis_name: compiled(LAZY), [{}], ("image", "label")
    )
    settings = Run(seed=0, steps=100, batch_size=BATCH, log_every=1, checkpoint_every=1000, preview_every=0)
    with pytest.raises(FloatingPointError, match="grad_norm is nan at step 11;"):
        loop.run(experiment, settings, tmp_path, plan, batches)


@pytest.mark.parametrize(
    ("rules", "halves", "message"),
    [
        (SEVERAL._replace(d_steps=5), True, "no multiple of d_steps=5"),
        (LAZY._replace(path_length=PathLength(2.0, shrink=5)), True, "no multiple of shrink=5"),
        (LAZY, False, "path_length needs a generator with a w"),
    ],
)
def test_what_does_not_fit_is_one_line(rules, halves, message):
    game = make_game() if halves else make_game()._replace(halves=None)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make_train_step(game, rules), fresh_state(rules), batch_of(0), jax.random.key(0))
