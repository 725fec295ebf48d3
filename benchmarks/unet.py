"""The 35.7M DDPM net of CIFAR-10 beside diffusers + torch on this machine, float32, both sides in turn.

    python -m benchmarks.unet [--batch 8] [--rounds 5] [--json FILE]

Both sides start from the same weights and do the same work: `forward` is one prediction; `train` is noising, loss with
dropout 0.1, backward, Adam and an EMA of the parameters; `ddim` is 50 steps from noise to pictures. flaxgen runs what
the zoo runs: one key and one time an example through `jax.vmap`; `forward, batched` is the same without. A figure is
the median over the rounds; the first call of each, which compiles, is not counted.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from flaxgen.diffusion import losses, schedules, weighting
from flaxgen.diffusion.denoise import EPS, make_bind, table_index
from flaxgen.diffusion.samplers import ddim, sample
from flaxgen.diffusion.times import leading
from flaxgen.nets.unet import UNet
from flaxgen.parallel import make_plan
from flaxgen.train.state import init_state, make_train_step
from flaxgen.weights.unet2d import export_unet2d

TIMESTEPS, STEPS, EMA_DECAY, LEARNING_RATE, DROPOUT = 1000, 50, 0.9999, 2e-4, 0.1
Work = dict[str, Callable[[], None]]


def flaxgen_work(unet: UNet, params, x: np.ndarray, t: np.ndarray) -> Work:
    """What is measured, each ready to be called again and again."""
    schedule, time_input = schedules.linear(TIMESTEPS), table_index(TIMESTEPS)

    def apply(params, x, time, condition, key=None) -> Any:
        rngs = {} if key is None else {"dropout": key}
        return unet.apply({"params": params}, x, time, **condition, train=key is not None, rngs=rngs)

    def forward_one(params, xt):
        return apply(params, xt[0][None], xt[1][None], {})[0]

    def draw_one(params, x):
        bind = make_bind(lambda *inputs: apply(params, *inputs), schedule, EPS, time_input)
        return sample(ddim(schedule), bind({}), x[None], leading(STEPS, TIMESTEPS), jax.random.key(0))[0]

    loss = losses.per_example(
        losses.denoising_loss(
            apply,
            schedule,
            EPS,
            time_input,
            sample_time=weighting.table_time(TIMESTEPS),
            objective=losses.weighted_mse(EPS, weighting.simple),
            inputs=lambda batch, key: (batch["image"], {}),
        )
    )
    tx = optax.adam(LEARNING_RATE)
    train_step = make_train_step(loss, tx, ema_decay=lambda step: jnp.float32(EMA_DECAY))
    plan = make_plan("jit")
    train = plan.compile_step(lambda axis_name: train_step)
    batched = plan.compile_map(lambda params, xt: apply(params, *xt, {}))
    forward = plan.compile_map(jax.vmap(forward_one, (None, 0)))
    draw = plan.compile_map(jax.vmap(draw_one, (None, 0)))
    state = init_state(jax.tree.map(jnp.array, params), tx)

    def train_once():
        nonlocal state
        state, metrics = train(state, {"image": x}, jax.random.key(0))
        jax.block_until_ready((state, metrics))

    return {
        "forward": lambda: jax.block_until_ready(forward(params, (x, t))),
        "forward, batched": lambda: jax.block_until_ready(batched(params, (x, t))),
        "train": train_once,
        "ddim": lambda: jax.block_until_ready(draw(params, x)),
    }


def torch_work(folder: Path, x: np.ndarray, t: np.ndarray) -> Work:
    """The same with diffusers' net and schedulers, and torch's own Adam."""
    net: Any = UNet2DModel.from_pretrained(folder)
    noised_at: Any = DDPMScheduler(num_train_timesteps=TIMESTEPS)
    walk: Any = DDIMScheduler(num_train_timesteps=TIMESTEPS, clip_sample=False)
    pictures, times = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(t)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    ema, move_ema = [value.detach().clone() for value in net.parameters()], get_ema_multi_avg_fn(EMA_DECAY)

    @torch.no_grad()
    def forward():
        net.eval()(pictures, times)

    def train():
        net.train()
        eps, index = torch.randn_like(pictures), torch.randint(0, TIMESTEPS, (len(pictures),))
        out = net(noised_at.add_noise(pictures, eps, index), index).sample
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(out, eps).backward()
        optimizer.step()
        move_ema(ema, list(net.parameters()), None)

    @torch.no_grad()
    def draw():
        net.eval()
        walk.set_timesteps(STEPS)
        latent = pictures
        for index in walk.timesteps:
            latent = walk.step(net(latent, index).sample, index, latent).prev_sample

    return {"forward": forward, "train": train, "ddim": draw}


def measure(sides: dict[str, Work], rounds: dict[str, int], batch: int) -> dict[str, dict[str, float]]:
    """Images a second of every work on every side, by the median over rounds that take the sides in turn."""
    speeds: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for work in sides.values() for name in work):
        able = {side: work[name] for side, work in sides.items() if name in work}
        seconds = {side: [] for side in able}
        for run in range(rounds[name] + 1):
            for side, work in able.items():
                start = time.perf_counter()
                work()
                if run:
                    seconds[side].append(time.perf_counter() - start)
        speeds[name] = {side: batch / statistics.median(taken) for side, taken in seconds.items()}
        print(name, {side: [round(s, 2) for s in taken] for side, taken in seconds.items()}, flush=True)
    return speeds


def table(speeds: dict[str, dict[str, float]]) -> str:
    lines = [f"{'images/s':20}{'flaxgen':>10}{'torch':>10}{'ratio':>8}"]
    for name, by_side in speeds.items():
        ours, theirs = by_side["flaxgen"], by_side.get("torch", speeds["forward"]["torch"])
        lines.append(f"{name:20}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="flaxgen beside diffusers + torch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of forward and train; ddim takes half as many")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    rng, unet = np.random.default_rng(0), UNet(dropout=DROPOUT)
    x = rng.standard_normal((options.batch, 32, 32, 3)).astype(np.float32)
    t = rng.uniform(0, TIMESTEPS - 1, options.batch).astype(np.float32)
    params = jax.jit(unet.init)(jax.random.key(0), x[:1], t[:1])["params"]
    with tempfile.TemporaryDirectory() as folder:
        export_unet2d(unet, params, folder)
        sides = {"flaxgen": flaxgen_work(unet, params, x, t), "torch": torch_work(Path(folder), x, t)}
    half = max(1, options.rounds // 2)
    rounds = {"forward": options.rounds, "forward, batched": options.rounds, "train": options.rounds, "ddim": half}
    speeds = measure(sides, rounds, options.batch)
    versions = {"jax": jax.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__}
    print(table(speeds), f"{versions}, {jax.devices()[0].platform}, {torch.get_num_threads()} torch threads", sep="\n")
    if options.json:
        found = {"batch": options.batch, "images_per_second": speeds, "versions": versions}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
