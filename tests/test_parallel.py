"""Every plan computes what the bare function does, whatever the number of devices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen import parallel
from flaxgen.train.state import init_state, make_train_step

BATCH, STEPS = 32, 5
PLANS = {
    "jit": parallel.jit_plan,
    "pmap": parallel.pmap_plan,
    "mesh 4x2": lambda: parallel.mesh_plan(data=4, fsdp=2),
    "mesh 1x4": lambda: parallel.mesh_plan(data=1, fsdp=4),
}


class Net(nn.Module):
    """A convolution, dropout and a matrix large enough to be split."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), strides=2)(x)
        x = nn.Dropout(0.3, deterministic=False)(nn.silu(x))
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


def loss(params, batch, keys):
    def one(x, y, key):
        out = Net().apply({"params": params}, x[None], rngs={"dropout": key})
        return jnp.mean(jnp.square(jnp.asarray(out)[0] - y))

    losses = jax.vmap(one)(batch["x"], batch["y"], keys)
    return losses.mean(), {"loss": losses.mean()}


TX = optax.sgd(0.1, momentum=0.9)


def make_step(axis_name, accumulate):
    return make_train_step(
        loss, TX, ema_decay=lambda step: jnp.float32(0.9), accumulate=accumulate, axis_name=axis_name
    )


@jax.jit
def fresh_state():
    params = Net().init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, jnp.zeros((1, 8, 8, 2)))
    return init_state(params["params"], TX)


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        yield {
            "x": rng.normal(size=(BATCH, 8, 8, 2)).astype(np.float32),
            "y": rng.normal(size=(BATCH, 4)).astype(np.float32),
        }


@functools.cache
def trained(name):
    """Five steps of a plan, each with the gradients of two halves of the batch; the state as it runs."""
    plan = PLANS[name]()
    step = plan.compile_step(lambda axis_name: make_step(axis_name, accumulate=2))
    state, losses = plan.place_state(fresh_state()), []
    for batch in batches():
        state, metrics = step(state, plan.place_batch(batch), jax.random.key(3))
        losses.append(float(metrics["loss"]))
    return state, np.array(losses)


@functools.cache
def bare(compiled=True):
    """Five steps of the plain function on the whole batch, on one device."""
    step, state, losses = make_step(None, accumulate=1), fresh_state(), []
    step = jax.jit(step) if compiled else step
    for batch in batches():
        state, metrics = step(state, jax.tree.map(jnp.asarray, batch), jax.random.key(3))
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), np.array(losses)


def relative_error(tree, reference):
    """Of every array, the distance over the norm; the largest."""
    errors = jax.tree.map(lambda a, b: np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12), tree, reference)
    return max(jax.tree.leaves(errors))


@pytest.fixture
def _small_arrays_are_sharded(monkeypatch):
    monkeypatch.setattr(parallel, "MIN_SHARDED", 64)


@pytest.mark.usefixtures("_small_arrays_are_sharded")
@pytest.mark.parametrize("name", PLANS)
def test_plans_give_the_numbers_of_the_bare_function(name):
    state, losses = trained(name)
    reference, expected = bare()
    single = jax.device_get(PLANS[name]().single(state))
    assert int(single.step) == STEPS
    for part in ("params", "ema_params", "opt_state"):
        assert relative_error(getattr(single, part), getattr(reference, part)) < 1e-5
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert relative_error(reference.params, jax.device_get(fresh_state().params)) > 1e-2, "nothing was learned"


@pytest.mark.slow  # every operation is compiled by itself
def test_a_compiled_step_gives_the_numbers_of_one_that_is_not():
    (state, losses), (reference, expected) = bare(), bare(compiled=False)
    for part in ("params", "ema_params", "opt_state"):
        assert relative_error(getattr(state, part), getattr(reference, part)) < 1e-5
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.usefixtures("_small_arrays_are_sharded")
def test_fsdp_stores_a_part_of_params_and_optimizer_state_on_each_device():
    state, _ = trained("mesh 4x2")
    for tree in (state.params, state.ema_params, state.opt_state):
        kernel = next(x for x in jax.tree.leaves(tree) if x.shape == (256, 4))
        assert {shard.data.shape for shard in kernel.addressable_shards} == {(128, 4)}
    assert state.step.is_fully_replicated
    assert state.params["Dense_0"]["bias"].is_fully_replicated


@pytest.mark.parametrize(
    ("shape", "spec"),
    [((256, 512), (None, "fsdp")), ((3, 3, 1024, 7), (None, None, "fsdp", None)), ((4095,), ()), ((4099, 3), ())],
)
def test_fsdp_splits_the_largest_dimension_it_divides(shape, spec):
    assert tuple(parallel.fsdp_spec(shape, 2)) == spec
    assert tuple(parallel.fsdp_spec(shape, 1)) == ()


@pytest.mark.usefixtures("_small_arrays_are_sharded")
@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_bytes_per_device_are_those_that_a_device_holds(fsdp):
    """Counted of shapes alone, without the devices of the mesh."""
    placed = parallel.mesh_plan(data=8 // fsdp, fsdp=fsdp).place_state(fresh_state())
    shards = [shard for x in jax.tree.leaves(placed) for shard in x.addressable_shards]
    whole = sum(x.nbytes for x in jax.tree.leaves(placed))
    for device in (jax.devices()[0], jax.devices()[-1]):
        held = sum(shard.data.nbytes for shard in shards if shard.device == device)
        assert parallel.bytes_per_device(jax.eval_shape(fresh_state), fsdp) == held
        assert held < 0.3 * whole if fsdp == 8 else held <= whole / fsdp * 1.1


@pytest.mark.usefixtures("_small_arrays_are_sharded")
@pytest.mark.parametrize("name", PLANS)
def test_a_state_lands_where_abstract_says(name):
    """`abstract` of shapes alone is `single` of the placed state: what is restored into it needs no moving."""
    plan = PLANS[name]()
    placed = plan.place_state(fresh_state())
    abstract, single = plan.abstract(jax.eval_shape(fresh_state)), plan.single(placed)
    for wanted, has in zip(jax.tree.leaves(abstract), jax.tree.leaves(single), strict=True):
        assert (wanted.shape, wanted.dtype) == (has.shape, has.dtype)
        assert wanted.sharding.is_equivalent_to(jnp.asarray(has).sharding, has.ndim)


def test_placing_what_is_in_place_copies_nothing():
    plan = parallel.mesh_plan(data=4, fsdp=2)
    placed = plan.place_state(fresh_state())
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (placed, plan.place_state(placed))), strict=True))


@pytest.mark.parametrize("name", PLANS)
def test_maps_give_the_numbers_of_the_bare_function(name):
    def fn(params, inputs):
        drawn = jax.vmap(lambda key: jax.random.normal(key, (4,)))(inputs["key"])
        return {"y": inputs["x"] @ params + drawn, "label": inputs["label"]}

    def inputs():
        keys = parallel.example_keys(jax.random.key(0), 16)
        return {"x": jnp.linspace(0, 1, 48).reshape(16, 3), "label": jnp.arange(16), "key": keys}

    params = jnp.arange(12.0).reshape(3, 4)
    out, expected = PLANS[name]().compile_map(fn)(params, inputs()), fn(params, inputs())
    np.testing.assert_allclose(out["y"], expected["y"], rtol=1e-6)
    np.testing.assert_array_equal(out["label"], np.arange(16))


@pytest.mark.parametrize("name", PLANS)
def test_maps_without_parameters_split_their_inputs(name):
    """By `pmap` every device sees its own two rows; elsewhere the program is of the whole."""
    seen = []

    def fn(params, inputs):
        seen.append(inputs["x"].shape[0])
        return {"y": 2 * inputs["x"]}

    x = np.arange(16.0, dtype=np.float32)
    out = PLANS[name]().compile_map(fn)({}, {"x": x})
    np.testing.assert_array_equal(out["y"], 2 * x)
    assert seen == [2 if name == "pmap" else 16]


def test_keys_of_examples_are_those_of_their_place_in_the_global_batch():
    def keys_of_device(place, key):
        return parallel.example_keys(key, 4, "i")

    split = jax.pmap(keys_of_device, "i", in_axes=(0, None))(np.arange(8), jax.random.key(0))
    whole = parallel.example_keys(jax.random.key(0), 32)
    np.testing.assert_array_equal(jax.random.key_data(split).reshape(32, -1), jax.random.key_data(whole))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parallel.make_plan("tpu"), "jit, pmap, mesh"),
        (lambda: parallel.mesh_plan(fsdp=3), "fsdp=3 does not divide the 8 devices"),
        (lambda: parallel.mesh_plan(data=0), "data=0: expected 1 or more"),
        (lambda: parallel.check_batch(32, parallel.pmap_plan(), 3), "batch_size=32 in accumulate=3 parts"),
        (lambda: parallel.mesh_plan(data=8, fsdp=2), "needs 16 devices, found 8"),
        (lambda: parallel.check_batch(12, parallel.pmap_plan()), "batch_size=12 is not divisible by the 8 devices"),
    ],
)
def test_what_cannot_be_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a,b"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "a"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_a_batch_script_is_one_process_and_a_step_of_it_several(environ, several):
    assert parallel.launched_as_several(environ) is several


def test_processes_that_do_not_come_are_one_line(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nDetails")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConnectionError, match=r"^could not join the other processes at a:1: DEADLINE[^\n]*out\.$"):
        parallel.initialize("a:1", 2, 0)
