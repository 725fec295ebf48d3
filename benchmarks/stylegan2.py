"""A train step of StyleGAN2 at 32 pixels beside the same nets in torch eager on this machine, float32.

    python -m benchmarks.stylegan2 [--channels 128] [--batch 16] [--rounds 5] [--json FILE]

NVlabs' `cifar` nets with at most `--channels` channels (theirs have 512). Both sides start from the same weights and do
the same work; torch's nets are the plain ones that the parity tests compare with (benchmarks/torch_stylegan2.py).

`bare` is a step of the discriminator, one of the generator, both by the non-saturating loss and Adam, the mean of w and
an EMA of the generator. The rest is of a run with R1 every 16 steps, on the batch, and path lengths every 4, on half of
it: a step where `none` is due, `path` or `both`, and the `cycle` of 16 steps that these make. `R1 alone` and
`path alone` are the regularisers' own steps, Adam included, compiled by themselves: at their intervals they are what
lazy regularisation is expected to cost. `bare, ADA` is the bare step with NVlabs' bgc at p = 0.5, without counterpart;
no other has augmentations. A figure is the median over rounds that take all kinds and sides in turn; the first round,
which compiles, is not counted. Beside seconds by the wall there are those of the processor, which other programs on the
machine disturb less.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks import torch_stylegan2 as nets
from flaxgen.data import Data
from flaxgen.gan.regularize import path_length_penalty, path_lengths
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.parallel import example_keys, make_plan
from flaxgen.weights import store
from flaxgen.weights.stylegan2 import export_discriminator, export_generator
from flaxgen.zoo.gan import Augmentation, Config, Regularizers, training

SIZE, LATENT, GAMMA, PATH_WEIGHT, EMA_DECAY = 32, 512, 0.01, 2.0, 0.998
R1_INTERVAL, PATH_INTERVAL = 16, 4
CYCLE = {"none": 12, "path": 3, "both": 1}
"""The steps of 16."""
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Work = dict[str, Callable[[], None]]
Seconds = dict[str, dict[str, float]]
"""By kind of step and side."""


def make_config(channels: int, batch: int) -> Config:
    """The run without regularisers."""
    return Config(
        seed=0,
        steps=1,
        batch_size=batch,
        data=Data("folder", image_size=SIZE),
        generator=Generator(SIZE, mapping_depth=2, channel_max=channels),
        discriminator=Discriminator(SIZE, architecture="orig", group=32, channel_max=channels),
    )


def make_lazy(config: Config) -> Config:
    regularizers = Regularizers(r1=GAMMA, interval=R1_INTERVAL, path_length=PATH_WEIGHT, path_interval=PATH_INTERVAL)
    return dataclasses.replace(config, regularizers=regularizers)


class Run:
    """A run of flaxgen's, whose step can be taken as if it were any of the cycle."""

    def __init__(self, config: Config, images: np.ndarray):
        init, make_step = training.training(config, {})
        self.take = make_plan("jit").compile_step(make_step)
        self.state, self.batch = init(jax.random.key(0)), {"image": images}

    def step(self, number: int) -> None:
        state = self.state._replace(step=jnp.int32(number))
        self.state, metrics = self.take(state, self.batch, jax.random.key(1))
        jax.block_until_ready((self.state, metrics))


def flaxgen_work(config: Config, images: np.ndarray) -> Work:
    """What is measured, each ready to be called again and again."""
    bare, lazy = Run(config, images), Run(make_lazy(config), images)
    augmented = Run(dataclasses.replace(config, augmentation=Augmentation("bgc", probability=0.5, target=0)), images)
    r1, path = regularisers(make_lazy(config), lazy.state, images)
    return {
        "bare": functools.partial(bare.step, 1),
        "none": functools.partial(lazy.step, 1),
        "path": functools.partial(lazy.step, PATH_INTERVAL),
        "both": functools.partial(lazy.step, R1_INTERVAL),
        "R1 alone": r1,
        "path alone": path,
        "bare, ADA": functools.partial(augmented.step, 1),
    }


def regularisers(config: Config, state: Any, images: np.ndarray) -> tuple[Callable[[], None], Callable[[], None]]:
    """Steps of the discriminator along R1 and of the generator along its path lengths."""
    rules, game = training.make_rules(config), training.make_game(config, None)
    assert rules.penalty is not None
    assert game.halves is not None
    penalty, (map_latents, synthesize) = rules.penalty, game.halves

    def r1(variables, x, keys):
        real, label = game.read({"image": x})
        critic = lambda x, keys: game.discriminate(variables, x, label)  # noqa: E731
        return R1_INTERVAL * penalty(critic, real, real, keys[:, 0])

    def path(variables, x, keys):
        w = map_latents(variables, game.latents(keys[: len(x) // 2, 0]), None, keys[: len(x) // 2, 1])
        lengths = path_lengths(lambda w: synthesize(variables, w, keys[: len(x) // 2, 2]), w, keys[: len(x) // 2, 3])
        return PATH_INTERVAL * PATH_WEIGHT * path_length_penalty(lengths, 0.1 * lengths.mean())

    def make(loss, player, tx):
        def step(axis_name):
            def take(player, x, key):
                keys = jax.vmap(lambda key: jax.random.split(key, 4))(example_keys(key, len(x), axis_name))
                params = player.variables["params"]
                grads = jax.grad(lambda params: loss({**player.variables, "params": params}, x, keys))(params)
                updates, opt_state = tx.update(grads, player.opt_state, params)
                params = optax.apply_updates(params, updates)
                return player._replace(variables={**player.variables, "params": params}, opt_state=opt_state), {}

            return take

        taken, held = make_plan("jit").compile_step(step), jax.tree.map(jnp.array, player)

        def run():
            nonlocal held
            held, _ = jax.block_until_ready(taken(held, images, jax.random.key(1)))

        return run

    return make(r1, state.discriminator, rules.discriminator_tx), make(path, state.generator, rules.generator_tx)


class TorchRun:
    """The same steps, by torch's own autograd and Adam."""

    def __init__(self, folder: Path, config: Config, images: np.ndarray):
        read = (store.read_file(folder / f"{name}.safetensors") for name in ("generator", "discriminator"))
        self.g, self.d = (nets.tensors(arrays, torch.float32) for arrays in read)
        self.w_avg = self.g["mapping.w_avg"].detach()
        # Filters are theirs to build in, noise and mean are no parameters.
        trained = [[v for k, v in t.items() if not k.endswith(("filter", "const", "avg")) or k.endswith("b4.const")]
                   for t in (self.g, self.d)]  # fmt: skip
        self.g_params, self.d_params = trained
        self.g_adam, self.d_adam = (torch.optim.Adam(p, lr=2.5e-3, betas=(0.0, 0.99), eps=1e-8) for p in trained)
        self.ema = [value.detach().clone() for value in self.g_params]
        self.config = config
        self.real = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
        self.path_mean = torch.zeros(())

    def map(self, count: int):
        w = nets.mapping(self.g, torch.randn(count, LATENT), None)
        return w[:, None].expand(-1, self.config.generator.num_layers, -1)

    def draw(self, ws):
        return nets.synthesis(self.g, ws, self.config.generator.architecture, "random")

    def judge(self, x):
        return nets.discriminate(self.d, x, None, self.config.discriminator.architecture, 32)

    def descend(self, loss, params, adam) -> None:
        adam.zero_grad()
        for value, grad in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
            value.grad = None if grad is None else torch.nan_to_num(grad, nan=0, posinf=1e5, neginf=-1e5)
        adam.step()

    def bare(self) -> None:
        softplus = torch.nn.functional.softplus
        with torch.no_grad():
            fake = self.draw(self.map(len(self.real)))
        loss = softplus(-self.judge(self.real)).mean() + softplus(self.judge(fake)).mean()
        self.descend(loss, self.d_params, self.d_adam)
        ws = self.map(len(self.real))
        loss = softplus(-self.judge(self.draw(ws))).mean()
        self.descend(loss, self.g_params, self.g_adam)
        with torch.no_grad():
            self.w_avg.lerp_(ws[:, 0].mean(0), 0.005)
            for mean, value in zip(self.ema, self.g_params, strict=True):
                mean.lerp_(value, 1 - EMA_DECAY)

    def r1(self) -> None:
        x = self.real.clone().requires_grad_()
        (along,) = torch.autograd.grad(self.judge(x).sum(), x, create_graph=True)
        loss = R1_INTERVAL * GAMMA / 2 * along.square().sum((1, 2, 3)).mean()
        self.descend(loss, self.d_params, self.d_adam)

    def path(self) -> None:
        ws = self.map(len(self.real) // 2)
        image = self.draw(ws)
        (along,) = torch.autograd.grad((image * torch.randn_like(image) / SIZE).sum(), ws, create_graph=True)
        lengths = along.square().sum(2).mean(1).sqrt()
        mean = self.path_mean.lerp(lengths.mean(), 0.01)
        self.path_mean = mean.detach()
        self.descend(PATH_INTERVAL * PATH_WEIGHT * (lengths - mean).square().mean(), self.g_params, self.g_adam)


def torch_work(folder: Path, config: Config, images: np.ndarray) -> Work:
    """Where nothing is compiled, a step in which none is due is a bare one."""
    run = TorchRun(folder, config, images)

    def due(*steps):
        return lambda: [step() for step in steps] and None

    return {
        "bare": run.bare,
        "none": run.bare,
        "path": due(run.bare, run.path),
        "both": due(run.bare, run.r1, run.path),
        "R1 alone": run.r1,
        "path alone": run.path,
    }


def measure(sides: dict[str, Work], rounds: int) -> dict[str, Seconds]:
    """Seconds by the wall and of the processor, of every kind of step on every side: medians over rounds that take all
    in turn."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {clock: {} for clock in CLOCKS}
    for run in range(rounds + 1):
        for name in dict.fromkeys(name for work in sides.values() for name in work):
            for side, work in sides.items():
                if name not in work:
                    continue
                before = [now() for now in CLOCKS.values()]
                work[name]()
                taken = [now() - start for now, start in zip(CLOCKS.values(), before, strict=True)]
                print(f"round {run}, {name}, {side}:", *(f"{s:.3f}" for s in taken), flush=True)
                for clock, seconds in zip(CLOCKS, taken, strict=True):
                    found[clock].setdefault(name, {}).setdefault(side, []).append(seconds)
    return {
        clock: {name: {side: statistics.median(s[1:]) for side, s in x.items()} for name, x in kinds.items()}
        for clock, kinds in found.items()
    }


def with_cycle(seconds: Seconds) -> Seconds:
    """And the mean step of a cycle, where its steps were measured."""
    if not CYCLE.keys() <= seconds.keys():
        return seconds
    sides = seconds["bare"]
    cycle = {s: sum(n * seconds[kind][s] for kind, n in CYCLE.items()) / sum(CYCLE.values()) for s in sides}
    return {**seconds, "cycle": cycle}


def lazy_cost(seconds: Seconds, side: str) -> dict[str, float]:
    """What regularisers add to the bare step, as a fraction of it: measured, and as expected of their own steps; and
    the fraction that they would add at every step."""
    bare, r1, path = (seconds[name][side] for name in ("bare", "R1 alone", "path alone"))
    return {
        "measured": seconds["cycle"][side] / bare - 1,
        "expected": (r1 / R1_INTERVAL + path / PATH_INTERVAL) / bare,
        "every step": (r1 + path) / bare,
    }


def table(seconds: Seconds, batch: int) -> str:
    lines = [f"{'':12}{'flaxgen s':>10}{'torch s':>10}{'images/s':>10}{'torch':>10}{'ratio':>8}"]
    for name, by_side in seconds.items():
        ours, theirs = by_side["flaxgen"], by_side.get("torch", seconds["bare"]["torch"])
        lines.append(
            f"{name:12}{ours:10.3f}{theirs:10.3f}{batch / ours:10.2f}{batch / theirs:10.2f}{theirs / ours:8.2f}"
        )
    for side in ("flaxgen", "torch") if {"cycle", "R1 alone", "path alone"} <= seconds.keys() else ():
        shares = ", ".join(f"{name} {share:.3f}" for name, share in lazy_cost(seconds, side).items())
        lines.append(f"cost of regularisation above bare, {side}: {shares}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="flaxgen's StyleGAN2 beside torch's")
    parser.add_argument("--channels", type=int, default=128, help="at most so many (128; NVlabs' have 512)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", help="of steps: some of those above (all)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    config = make_config(options.channels, options.batch)
    images = np.random.default_rng(0).integers(0, 256, (options.batch, SIZE, SIZE, 3), dtype=np.uint8)
    before, state = os.getloadavg(), training.training(config, {})[0](jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        export_generator(config.generator, dict(state.generator.variables), Path(folder) / "generator.safetensors")
        written = Path(folder) / "discriminator.safetensors"
        export_discriminator(config.discriminator, dict(state.discriminator.variables), written)
        sides = {"flaxgen": flaxgen_work(config, images), "torch": torch_work(Path(folder), config, images)}
    if options.kinds:
        sides = {side: {name: work[name] for name in options.kinds if name in work} for side, work in sides.items()}
    seconds = {clock: with_cycle(found) for clock, found in measure(sides, options.rounds).items()}
    counts = {name: sum(x.size for x in jax.tree.leaves(net)) for name, net in training.parameters(config).items()}
    versions = {"jax": jax.__version__, "torch": torch.__version__}
    load = f"load before {before[0]:.1f}, after {os.getloadavg()[0]:.1f}"
    for clock, found in seconds.items():
        print(f"by the {clock}:", table(found, options.batch), sep="\n")
    print(f"{counts}, {versions}, {jax.devices()[0].platform}, {torch.get_num_threads()} torch threads, {load}")
    if options.json:
        found = {"channels": options.channels, "batch": options.batch, "parameters": counts, "seconds": seconds}
        options.json.write_text(json.dumps({**found, "versions": versions, "load": os.getloadavg()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
