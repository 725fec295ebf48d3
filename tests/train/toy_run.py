"""A run small enough to be killed twenty times: `python toy_run.py WORKDIR STEPS [key=value ...]`.

Keys: those of `Run`; parallel (a plan); fsdp; sleep (seconds a step); nan_at (the step whose batch is not a number);
width (of the net); rate (of learning); file_limit (bytes a file may have, to fail as on a full disk); distributed
(jax.distributed: port,processes,process).
"""

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxgen import parallel
from flaxgen.train import loop
from flaxgen.train.run import Run
from flaxgen.train.state import init_state, make_train_step
from flaxgen.types import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Run):
    """A linear map that learns to undo noise: every example draws its own."""

    width: int = 16
    nan_at: int = 0
    sleep: float = 0.0
    rate: float = 1e-2


def toy_experiment(config: Toy) -> Experiment:
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(config.rate, 0.1 * config.rate, 40))
    )

    def init(key):
        return init_state({"w": 0.1 * jax.random.normal(key, (config.width, config.width))}, tx)

    def loss(params, batch, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (config.width,)))(keys)
        mse = jnp.mean(jnp.square((batch["x"] + noise) @ params["w"] - batch["x"]))
        return mse, {"loss": mse}

    def make_step(axis_name):
        return make_train_step(loss, tx, ema_decay=lambda step: jnp.float32(0.9), axis_name=axis_name)

    def preview(state, key):
        return np.asarray(jnp.clip(128 + 100 * state.ema_params["w"], 0, 255), np.uint8)[..., None]

    return Experiment(init, make_step, source=[{}], batch_fields=("x",), preview=preview)


def toy_batches(config: Toy):
    """This process's share of the batch of every step, as a function of (seed, step)."""

    def batches(start: int):
        for step in range(start + 1, 2**31):
            time.sleep(config.sleep)
            x = np.random.default_rng((config.seed, step)).normal(size=(config.batch_size, config.width))
            share = config.batch_size // parallel.process_count()
            first = parallel.process_index() * share
            scale = np.nan if step == config.nan_at else 1.0
            yield {"x": (scale * x[first : first + share]).astype(np.float32)}

    return batches


def main() -> None:
    workdir, steps, *rest = sys.argv[1:]
    given = dict(word.split("=") for word in rest)
    plan, fsdp, limit = given.pop("parallel", "jit"), int(given.pop("fsdp", 1)), given.pop("file_limit", None)
    if "distributed" in given:
        port, processes, process = map(int, given.pop("distributed").split(","))
        parallel.initialize(f"127.0.0.1:{port}", processes, process)
    config = Toy(seed=0, steps=int(steps), **{"batch_size": 8, **{k: json.loads(v) for k, v in given.items()}})
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        loop.run(
            toy_experiment(config), config, Path(workdir), parallel.make_plan(plan, fsdp=fsdp), toy_batches(config)
        )
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"flaxgen: {error}", file=sys.stderr)
        parallel.leave(1)
        sys.exit(1)


if __name__ == "__main__":
    main()
