"""One device, many devices, many hosts: the only file that names pmap, Mesh, NamedSharding, PartitionSpec and
jax.distributed.

A `Plan` says where a state and a batch live and how a step written for one device runs there. All plans give the same
numbers (tests/test_parallel.py): what is random depends on an example's place in the global batch, not on its device.
"""

import functools
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flaxgen import programs
from flaxgen.types import Batch, PRNGKey, State, TrainStep

AXIS = "device"
MIN_SHARDED = 2**12
"""Arrays with fewer elements are replicated: gathering them would cost more than storing them."""
JOIN_SECONDS = 120

CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": "cse_barrier_expander",
}
"""XLA's own sums over pixels are slow on a CPU: the first two options give them to a library, and order work by memory.
With them and without, the gradient of the 35.7M net (batch 8, two cores) took 0.96 s and 1.30 s, a forward pass 0.24 s
and 0.31 s. The last one leaves the barriers of `nets.layers.once` in place until operations have been fused."""


class CompileMap(Protocol):
    """The type of `Plan.compile_map`."""

    def __call__(self, fn: programs.Function, key: programs.Key | None = None) -> programs.Function: ...


class Plan(NamedTuple):
    """Where things live and how steps run.

    `place_state`, `place_batch` move host or one-device values to where `compile_step`'s step wants them; a batch is
    this process's share of it. `single` turns a running state into one without device axis, as it is saved and sampled
    from. `abstract` gives what `single` would, as ShapeDtypeStructs with shardings, for restoring into.
    `compile_map` makes `fn(params, inputs)` run with the leading axis of `inputs` split over the devices; its params
    are as `single` gives them and its outputs are whole arrays on every host. With a `key`, as `programs.kept` takes
    it, one device keeps the traced program for the next command.
    """

    name: str
    devices: int
    compile_step: Callable[[Callable[[str | None], TrainStep]], TrainStep]
    place_state: Callable[[State], State]
    place_batch: Callable[[Mapping[str, np.ndarray]], Batch]
    single: Callable[[State], State]
    abstract: Callable[[State], State]
    compile_map: CompileMap


@functools.cache
def compiler_options() -> dict[str, str | bool] | None:
    """The compiler's options: CPU_OPTIONS on a CPU whose compiler knows them, else nothing."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS)(0)
    except jax.errors.JaxRuntimeError:
        return None
    return dict(CPU_OPTIONS)


def example_keys(key: PRNGKey, batch_size: int, axis_name: str | None = None):
    """One key an example of this device's `batch_size`, from its place in the global batch; shape [B]."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch_size
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(batch_size))


def mean_over(axis_name: str | None, tree):
    """Mean over the devices of `axis_name`; the identity on one device and under a mesh, where means are global."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the other processes, where there are any; call before any other use of JAX.

    Without arguments JAX asks the launcher, if the environment shows one (TPU pods, Slurm, Open MPI, or
    JAX_COORDINATOR_ADDRESS). Survivors of a dead peer stop after 10 s instead of JAX's 100 s. Where the others do not
    come, most versions of JAX abort with a stack trace, hence the line before.

    Raises:
        ValueError: if only some of the arguments are given.
        ConnectionError: if the others do not come.
    """
    given = (coordinator, num_processes, process_id)
    if any(x is not None for x in given) and None in given:
        raise ValueError("--coordinator, --num-processes and --process-id go together: give all three or none")
    if coordinator is None and not launched_as_several():
        return
    where = f"the other processes at {coordinator}" if coordinator else "the other processes of the launcher"
    print(f"joining {where}, for at most {JOIN_SECONDS} s", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, initialization_timeout=JOIN_SECONDS, heartbeat_timeout_seconds=10
        )
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConnectionError(f"could not join {where}: {reason}") from error


def launched_as_several(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher says that this process is one of several.

    Slurm says how many there will be in a batch script already, which is one process: srun adds a step.
    """
    names = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE") if "SLURM_STEP_NODELIST" in environ else ("OMPI_COMM_WORLD_SIZE",)
    counts = (environ.get(name, "") for name in names)
    hosts = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    multislice = "MEGASCALE_COORDINATOR_ADDRESS" in environ or "JAX_COORDINATOR_ADDRESS" in environ
    return multislice or len(hosts) > 1 or any(count.isdigit() and int(count) > 1 for count in counts)


def process_index() -> int:
    """Which of the processes this is, from 0."""
    return jax.process_index()


def process_count() -> int:
    """How many processes there are."""
    return jax.process_count()


def leave(code: int) -> None:
    """Ends this process at once because of an error, where there are other processes; returns where there are none.

    The others may wait for it in a collective, which JAX's orderly shutdown would wait for in turn; they stop when its
    heartbeat does.
    """
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def agree(value: int) -> int:
    """Process 0's value, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def is_distributed() -> bool:
    """Whether this process has joined others (or runs alone under `initialize`)."""
    return jax.distributed.is_initialized()


def preempted(step: int) -> bool:
    """Whether all processes are to stop after this step, because one of them got SIGTERM; the same step on all.

    Every process has to ask after every step. JAX's own SIGTERM handler has to be in place; never true without
    `initialize`.
    """
    return is_distributed() and multihost_utils.reached_preemption_sync_point(step)


def local(state: State) -> State:
    """The state as arrays that this process can read alone; every process has to call it."""
    if jax.process_count() == 1:
        return state
    return jax.tree.map(lambda x: jnp.asarray(multihost_utils.process_allgather(x, tiled=True)), state)


def jit_plan() -> Plan:
    """One device."""
    return Plan(
        name="jit",
        devices=1,
        compile_step=lambda make_step: jax.jit(make_step(None), donate_argnums=0, compiler_options=compiler_options()),
        place_state=jax.device_put,
        place_batch=jax.device_put,
        single=lambda state: state,
        abstract=lambda state: jax.tree.map(lambda x: _struct(x, _one_device()), jax.eval_shape(lambda: state)),
        compile_map=lambda fn, key=None: programs.kept(fn, key, compiler_options()),
    )


def pmap_plan(devices: int | None = None) -> Plan:
    """The local devices, one replica of the state each; gradients are averaged by the step."""
    if jax.process_count() > 1:
        raise ValueError("--parallel pmap runs on one process, found several: use --parallel mesh")
    local = jax.local_devices()[:devices]
    count = len(local)

    def split(x):
        return x.reshape(count, x.shape[0] // count, *x.shape[1:])

    def compile_map(fn, key=None):
        mapped = jax.pmap(lambda given, inputs: fn(given[0], inputs), in_axes=(None, 0), devices=local)
        leaf = np.float32(0)  # jax 0.10 replicates the inputs, instead of splitting them, where params has no leaf

        def run(params, inputs):
            outputs = mapped((params, leaf), jax.tree.map(split, inputs))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)

        return run

    return Plan(
        name="pmap",
        devices=count,
        compile_step=lambda make_step: _pmapped_step(make_step, local),
        place_state=lambda state: jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), state),
        place_batch=lambda batch: jax.tree.map(split, dict(batch)),
        single=lambda state: jax.tree.map(lambda x: x[0], state),
        abstract=lambda state: jax.tree.map(lambda x: _struct(x, _one_device()), jax.eval_shape(lambda: state)),
        compile_map=compile_map,
    )


def _pmapped_step(make_step, devices) -> TrainStep:
    mapped = jax.pmap(make_step(AXIS), axis_name=AXIS, in_axes=(0, 0, None), donate_argnums=0, devices=devices)

    def step(state, batch, key):
        state, metrics = mapped(state, batch, key)
        return state, jax.tree.map(lambda x: x[0], metrics)

    return step


def mesh_plan(data: int | None = None, fsdp: int = 1) -> Plan:
    """All devices of all processes as a (data, fsdp) mesh: the batch is split over both axes, parameters and optimizer
    state over fsdp.

    Raises:
        ValueError: if data or fsdp is below 1, or data * fsdp is not the number of devices.
    """
    available = jax.device_count()
    if data is not None and data < 1:
        raise ValueError(f"mesh data={data}: expected 1 or more")
    if fsdp < 1 or (data is None and available % fsdp):
        raise ValueError(f"mesh fsdp={fsdp} does not divide the {available} devices")
    data = available // fsdp if data is None else data
    if data * fsdp > available or (jax.process_count() > 1 and data * fsdp != available):
        raise ValueError(f"mesh data={data}, fsdp={fsdp} needs {data * fsdp} devices, found {available}")
    mesh = jax.make_mesh(
        (data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[: data * fsdp]
    )
    rows, everywhere = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())

    def shardings(state):
        return jax.tree.map(lambda x: NamedSharding(mesh, fsdp_spec(np.shape(x), fsdp)), state)

    def place_state(state):
        return jax.tree.map(_put, state, shardings(state))

    def place_batch(batch):
        return {k: jax.make_array_from_process_local_data(rows, np.asarray(v)) for k, v in batch.items()}

    return Plan(
        name="mesh",
        devices=data * fsdp,
        compile_step=lambda make_step: _meshed_step(make_step(None), shardings, rows, everywhere),
        place_state=place_state,
        place_batch=place_batch,
        single=lambda state: state,
        abstract=lambda state: jax.tree.map(_struct, jax.eval_shape(lambda: state), shardings(state)),
        compile_map=lambda fn, key=None: _meshed_map(fn, rows, everywhere),
    )


def _meshed_step(step, shardings, rows, everywhere) -> TrainStep:
    """The state keeps its shardings from step to step; they follow from its shapes at the first call."""
    compiled = {}

    def run(state, batch, key):
        if not compiled:
            kept = shardings(state)
            compiled[0] = jax.jit(
                step,
                in_shardings=(kept, rows, everywhere),
                out_shardings=(kept, everywhere),
                donate_argnums=0,
                compiler_options=compiler_options(),
            )
        return compiled[0](state, batch, key)

    return run


def _meshed_map(fn, rows, everywhere):
    def constrained(params, inputs):
        return fn(params, jax.lax.with_sharding_constraint(inputs, rows))

    return jax.jit(constrained, out_shardings=everywhere, compiler_options=compiler_options())


def fsdp_spec(shape: tuple[int, ...], fsdp: int) -> P:
    """Splits the largest dimension that `fsdp` divides; small arrays, and those with no such dimension, stay whole."""
    dims = [i for i, n in enumerate(shape) if n % fsdp == 0]
    if fsdp == 1 or not dims or math.prod(shape) < MIN_SHARDED:
        return P()
    largest = max(dims, key=lambda i: shape[i])
    return P(*("fsdp" if i == largest else None for i in range(len(shape))))


def bytes_per_device(state: State, fsdp: int = 1) -> int:
    """What one device of a mesh with that `fsdp` holds of a state, which may be abstract; see `fsdp_spec`. The mesh's
    `data` does not matter: along it a state is replicated."""

    def held(x) -> int:
        parts = fsdp if "fsdp" in fsdp_spec(x.shape, fsdp) else 1
        return math.prod(x.shape) * x.dtype.itemsize // parts

    return sum(map(held, jax.tree.leaves(state)))


@functools.cache
def make_plan(name: str, *, data: int | None = None, fsdp: int = 1) -> Plan:
    """The plan called `jit`, `pmap` or `mesh`; the same one every time, so that what was compiled for it is found."""
    plans = {"jit": jit_plan, "pmap": pmap_plan, "mesh": lambda: mesh_plan(data, fsdp)}
    if name not in plans:
        raise ValueError(f"parallel={name!r} is not one of {', '.join(plans)}")
    if name == "jit" and jax.process_count() > 1:
        raise ValueError(f"--parallel jit runs on one process, found {jax.process_count()}: use --parallel mesh")
    return plans[name]()


def check_batch(batch_size: int, plan: Plan, accumulate: int = 1) -> None:
    """Raises ValueError unless the plan's devices divide the batch, and each of the parts that it is taken in."""
    if batch_size % plan.devices:
        raise ValueError(f"batch_size={batch_size} is not divisible by the {plan.devices} devices of {plan.name}")
    if batch_size % (plan.devices * accumulate):
        raise ValueError(
            f"batch_size={batch_size} in accumulate={accumulate} parts is not divisible by the {plan.devices} devices "
            f"of {plan.name}: expected a multiple of {plan.devices * accumulate}"
        )


def _one_device():
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _struct(x, sharding):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _put(x, sharding):
    """Every process holds the whole value and puts its own shards of it; a restored array is in place already."""
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
