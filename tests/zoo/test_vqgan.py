"""An autoencoder against a discriminator of patches: what each minimises, when, and on how many devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.data import Data, unit_range
from flaxgen.gan.losses import hinge
from flaxgen.nets.vqvae import VqVae
from flaxgen.train import checkpoint
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.types import Held
from flaxgen.zoo.autoencoder import FAMILY, Adversary, Codebook, Config, Reconstruction, adversary, training

SGD = Optimizer(name="sgd", learning_rate=0.1, beta1=0.0, clip=0.0)
CONFIG = Config(
    seed=0,
    steps=4,
    batch_size=16,
    log_every=1,
    preview_every=0,
    checkpoint_every=2,
    data=Data(source="digits", image_size=8, channels=1, threads=0),
    net=VqVae(image_size=8, in_channels=1, factor=2, channels=8, residual_channels=4, depth=1, latent_channels=4),
    bottleneck=Codebook(codes=8),
    reconstruction=Reconstruction(loss="absolute", learn_variance=True),
    adversary=Adversary("patches", width=4, depth=1, optimizer=SGD),
    optimizer=SGD,
    ema=Ema(decay=0.5, ramp=False),
)
LATE = dataclasses.replace(CONFIG, adversary=dataclasses.replace(CONFIG.adversary, start=2))
PLAIN = dataclasses.replace(CONFIG, adversary=Adversary())
KEY = jax.random.key(1)


@functools.cache
def images():
    return np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)


@functools.cache
def fresh():
    """The state at step 0, with a learned variance that is not 1, and a decoder whose pictures leave [-1, 1]."""
    state = FAMILY.training(CONFIG)[0](jax.random.key(0))
    params = {**state.params, "log_variance": jnp.float32(0.5)}
    last = params["decoder"]["up_0"]
    params["decoder"] = {**params["decoder"], "up_0": {**last, "kernel": 6 * last["kernel"]}}
    return jax.device_get(state._replace(params=params, ema_params=params))


@functools.cache
def compiled(config, plan="jit"):
    return parallel.make_plan(plan).compile_step(FAMILY.training(config)[1])


def walk(config, steps, plan="jit"):
    """The states and metrics of some steps from `fresh` on."""
    place, found = parallel.make_plan(plan), []
    state = place.place_state(jax.tree.map(jnp.array, fresh()))
    for _ in range(steps):
        state, metrics = compiled(config, plan)(state, place.place_batch({"image": images()}), KEY)
        found.append(jax.device_get((place.single(state), metrics)))
    return found


@functools.cache
def by_hand():
    """The losses of the first step as functions of the parameters, and their gradients one by one."""
    state, x = jax.tree.map(jnp.array, fresh()), unit_range(jnp.asarray(images()))
    net, first = adversary.discriminator_of(CONFIG), state.discriminator.variables

    def logits(params, pictures, **more):
        return net.apply({**first, "params": params}, pictures, train=True, **more)

    def drawn(params):
        keys = parallel.example_keys(jax.random.fold_in(jax.random.key(1), 0), 16)
        return training.through(CONFIG, params, x, keys, state.held)

    def nll(params):
        s = params["log_variance"]
        return training.distances(CONFIG, params, x, drawn(params).y).mean() / jnp.exp(s) + s

    def generator(params):
        return -logits(first["params"], drawn(params).y).mean()

    def discriminator(params):
        real, fake = logits(params, x), logits(params, drawn(state.params).y)
        return (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean()) / 2

    @jax.jit
    def gradients():
        parts = (nll, generator, lambda params: drawn(params).passed.cost)
        own = [jax.grad(part)(state.params) for part in parts]
        moved = logits(first["params"], x, mutable=["buffers"])[1]
        return own, jax.grad(discriminator)(first["params"]), moved, drawn(state.params).y

    return jax.device_get(gradients())


def assert_close(ours, theirs, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


def test_the_game_weighs_the_ratio_of_both_gradients_at_the_last_layer():
    """[Esser21, eq. 7], of gradients that are each taken by itself; pictures beyond [-1, 1] count too."""
    (nll, game, _), *_, y = by_hand()
    assert np.abs(y).max() > 1.2
    norms = [np.linalg.norm(part["decoder"]["up_0"]["kernel"]) for part in (nll, game)]
    (_, metrics), *_ = walk(CONFIG, 1)
    assert metrics["game_weight"] == pytest.approx(0.8 * norms[0] / (norms[1] + 1e-4), rel=1e-4)
    assert metrics["game_weight"] > 0.1


def test_the_weight_is_bounded():
    ones = jnp.ones((2, 2))
    assert float(adversary.adaptive_ratio(ones, ones, most=10.0)) == pytest.approx(2 / 2.0001)
    assert float(adversary.adaptive_ratio(ones, jnp.zeros((2, 2)), most=1e3)) == 1e3


def test_both_move_along_their_gradients():
    """One step of plain gradient descent is parameters less rate times gradient, so each gradient can be read off."""
    (nll, game, cost), judge, *_ = by_hand()
    before, (after, metrics) = fresh(), walk(CONFIG, 1)[0]
    total = jax.tree.map(lambda a, b, c: a + metrics["game_weight"] * b + c, nll, game, cost)
    for part in ("encoder", "decoder", "log_variance"):
        assert_close(after.params[part], jax.tree.map(lambda p, g: p - 0.1 * g, before.params[part], total[part]))
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, before.discriminator.variables["params"], judge)
    assert_close(after.discriminator.variables["params"], moved)
    assert_close(after.ema_params, jax.tree.map(lambda a, b: (a + b) / 2, before.params, after.params))


def test_statistics_are_those_of_the_batch():
    """The codebook's are moved once, as without a game; the discriminator's are those of real pictures."""
    _, _, moved, _ = by_hand()
    before, (after, _) = fresh(), walk(CONFIG, 1)[0]
    plain = FAMILY.training(PLAIN)[1](None)
    state = flaxgen.types.TrainState(*jax.tree.map(jnp.array, before)[:5])
    alone, _ = jax.jit(plain)(state, {"image": images()}, KEY)
    assert_close(after.held.statistics, alone.held.statistics, rtol=1e-6)
    assert_close(after.params["codebook"], alone.params["codebook"], rtol=1e-6)
    assert np.abs(after.params["codebook"] - before.params["codebook"]).max() > 0
    assert_close(after.discriminator.variables["buffers"], moved["buffers"])


def test_codes_that_follow_gradients_have_none_from_the_reconstruction():
    """[vdOord17, sec. 3.2]: it passes straight through them to the vectors that chose them."""
    config = dataclasses.replace(CONFIG, bottleneck=Codebook(codes=8, update="gradient", restart=0.0))
    params, x = jax.tree.map(jnp.array, fresh().params), unit_range(jnp.asarray(images()))
    held = training.init_held(config, KEY, params)

    @jax.jit
    def gradients():
        def parts(params):
            keys = parallel.example_keys(jax.random.key(1), 16)
            y, passed = training.through(config, params, x, keys, held)
            return jnp.stack([jnp.square(y).mean(), passed.cost])

        return jax.jacrev(parts)(params)

    norms = jax.tree.map(lambda leaf: np.abs(leaf).reshape(2, -1).max(1), gradients())
    assert norms["codebook"][0] == 0 < norms["codebook"][1]
    assert norms["encoder"]["conv_out"]["kernel"].min() > 0


def test_both_wait_until_the_game_begins():
    """Until then the discriminator stays as it is, to the last bit, and the autoencoder is one without adversary."""
    first, second, third = walk(LATE, 3)
    for state, metrics in (first, second):
        jax.tree.map(np.testing.assert_array_equal, state.discriminator, fresh().discriminator)
        assert metrics["game_weight"] == metrics["discriminator_loss"] == metrics["generator_loss"] == 0
    step = jax.jit(FAMILY.training(PLAIN)[1](None))
    state = flaxgen.types.TrainState(*jax.tree.map(jnp.array, fresh())[:5])
    for _ in range(2):
        state, metrics = step(state, {"image": images()}, KEY)
    assert_close(second[0].params, state.params, rtol=1e-5)
    assert second[1]["loss"] == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert third[1]["game_weight"] > 0
    changed = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), third[0].discriminator.variables, second[0].discriminator.variables
    )
    del changed["params"]["bias_2"]  # within both margins its two gradients cancel
    assert min(jax.tree.leaves(changed)) > 0


@pytest.mark.parametrize("plan", ["pmap", "mesh"])
def test_many_devices_give_the_steps_of_one(plan):
    """Three steps, of which two before the game: parameters, averages, codes, the discriminator and its statistics."""
    for (ours, said), (theirs, meant) in zip(walk(LATE, 4, plan), walk(LATE, 4), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert_close(said, meant, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four steps of a run, of which the game is on for two."""
    workdir = tmp_path_factory.mktemp("runs") / "vqgan"
    verbs.train(LATE, workdir, parallel.make_plan("jit"))
    return workdir


def saved(workdir):
    return checkpoint.read(workdir / "checkpoints", adversary.AdversarialState._fields)


@pytest.mark.slow  # compiles the step twice more
def test_a_resumed_run_is_the_run_bit_for_bit(run, tmp_path):
    for steps in (3, 4):
        verbs.train(dataclasses.replace(LATE, steps=steps), tmp_path / "run", parallel.make_plan("jit"))
    jax.tree.map(np.testing.assert_array_equal, saved(tmp_path / "run"), saved(run))


def test_a_run_is_a_model(run):
    model = flaxgen.load(run)
    assert model.autoencode(images()).shape == (16, 8, 8, 1)
    jax.tree.map(np.testing.assert_array_equal, model.params, saved(run)[1]["ema_params"])


def test_a_game_can_begin_with_an_autoencoder_that_was_trained_without_one(run, tmp_path):
    """And with one that was: the discriminator is a new one in both."""
    verbs.train(dataclasses.replace(PLAIN, steps=1), tmp_path / "plain", parallel.make_plan("jit"))
    for start in (tmp_path / "plain", run):
        config = dataclasses.replace(LATE, start=str(start))
        experiment = flaxgen.family.directory.begin_with(FAMILY, config, FAMILY.build(config, {}))
        begun = experiment.init(jax.random.key(5))
        assert_close(begun.params, flaxgen.load(start).params, rtol=0, atol=0)
        assert isinstance(begun.held, Held)
        _, own = jax.random.split(jax.random.key(5))
        anew = adversary.discriminator_of(config).init(own, jnp.zeros((1, 8, 8, 1)))
        assert_close(begun.discriminator.variables, dict(anew), atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 2}, "accumulate=2: with an adversary a batch is taken whole"),
        ({"adversary": Adversary("patches", depth=2)}, r"adversary\.depth=2 halves pictures to 3 pixels"),
    ],
)
def test_configs_that_do_not_fit_are_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(CONFIG, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Adversary, {"weight": 0.0}, "weight=0.0"),
        (Adversary, {"most": -1.0}, "most=-1.0"),
        (Adversary, {"start": -1}, "start=-1"),
        (Reconstruction, {"loss": "logistic", "learn_variance": True}, "is for loss=squared and loss=absolute"),
    ],
)
def test_values_out_of_range(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_the_hinge_is_the_one_of_gans():
    real, fake = jnp.asarray([0.5, 2.0]), jnp.asarray([-3.0, 0.5])
    assert float(hinge.discriminator(real, fake)) == 0.25 + 0.75
