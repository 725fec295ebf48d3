"""Two games whose end is known: on a line D has to become p_data / (p_data + p_g), and eight Gaussians on a circle show
which losses keep all modes.

python -m benchmarks.gan_toys gaussian1d --json docs/gan_gaussian1d.json --plot docs/gan_gaussian1d.png
python -m benchmarks.gan_toys eight_gaussians --steps 2000 --json docs/gan_8gaussians.json
python -m benchmarks.gan_toys pressed --steps 600 --json docs/gan_8gaussians_pressed.json
python -m benchmarks.gan_toys gaussian1d --from docs/gan_gaussian1d.json --plot docs/gan_gaussian1d.png

They train by the experiments in experiments/ and print JSON, those on the circle a table in Markdown as well. In
`pressed` both players have momentum 0.5 and D learns ten times as fast. --seeds N is how many runs there are of a kind,
--steps N how long they are, and --from FILE takes what an earlier --json kept instead of training.
"""

import argparse
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flaxgen import parallel
from flaxgen.data import Order, batches
from flaxgen.data.toys import CLUSTER_STD, MEAN, STD
from flaxgen.gan.losses import LOSSES
from flaxgen.train import loop
from flaxgen.types import State
from flaxgen.verbs import read_experiment
from flaxgen.zoo import gan

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
LOOKS = {*range(10, 100, 10), *range(100, 1000, 50), *range(1000, 100_000, 200)}
"""Steps after which the game on a line is looked at."""
DRAWS, LOW, HIGH, BIN = 200_000, -1.5, 2.0, 0.01
"""Of the generator, and the bins that they are counted in."""
KERNEL = 0.02
"""Standard deviation of the Gaussian that the counts are smoothed with; p_data is convolved with it too."""
SHOWN = (10, 30, 70, 200, 1000, 8000)
"""Steps of the panels."""
NAMES = {1: "One step", 5: "Five steps"}
"""Of the discriminator to one of the generator."""
CENTRES = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
SAMPLES, REACH, LEAST = 20_000, 3 * CLUSTER_STD, 0.01
"""A mode is covered where at least the share LEAST of the samples lie within REACH of it; of the data 12.4% do."""
PENALTIES = {
    "none": gan.Regularizers(),
    "R1, 0.1": gan.Regularizers(r1=0.1),
    "R1, 1": gan.Regularizers(r1=1.0),
    "lines, 0.1": gan.Regularizers(lines=0.1),
}


def play(
    config: gan.Config, workdir: Path, every: int = 0, look: Callable[[State], Mapping[str, float]] = lambda _: {}
) -> State:
    """The last state of the run that `flaxgen train` makes; `look` is shown the state every so many steps."""
    experiment = gan.FAMILY.build(config, {})

    def make_batches(step: int):
        order, data = Order(config.seed, config.batch_size), config.data
        return batches(experiment.source, order, start_step=step, fields=experiment.batch_fields, threads=data.threads)

    extras = loop.Extras(evaluate_every=every, evaluate=look)
    return loop.run(experiment, config, workdir, parallel.make_plan("jit"), make_batches, extras)


def shortened(name: str, steps: int | None, **changes: Any) -> gan.Config:
    """An experiment with these changes, over `steps` where they are given, saved once and without pictures."""
    config = read_experiment(EXPERIMENTS / f"{name}.py")
    config = dataclasses.replace(config, steps=steps or config.steps, preview_every=0, **changes)
    return dataclasses.replace(config, checkpoint_every=config.steps)


def middles() -> Float[np.ndarray, " N"]:
    """Of the bins."""
    return np.arange(LOW, HIGH - BIN / 2, BIN) + BIN / 2


def density(points: Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
    """Of the points, in the bins, smoothed."""
    counts, _ = np.histogram(points, np.append(middles() - BIN / 2, HIGH))
    reach = np.arange(-round(5 * KERNEL / BIN), round(5 * KERNEL / BIN) + 1) * BIN
    kernel = np.exp(-0.5 * (reach / KERNEL) ** 2)
    return np.convolve(counts / (len(points) * BIN), kernel / kernel.sum(), "same")


def density_of_data() -> Float[np.ndarray, " N"]:
    """In the bins, as smooth."""
    std = np.hypot(STD, KERNEL)
    return np.exp(-0.5 * ((middles() - MEAN) / std) ** 2) / (std * np.sqrt(2 * np.pi))


def compare(drawn: Float[np.ndarray, " N"], judged: Float[np.ndarray, " N"]) -> dict[str, float]:
    """D against its optimum, as a mean over (p_data + p_g) / 2, and D over the middle 95 and 99% of the data."""
    x, data = middles(), density_of_data()
    both = drawn + data
    found = {"mean_abs_difference": float((both * np.abs(judged - best(drawn))).sum() / both.sum())}
    for share, deviations in ((95, 1.960), (99, 2.576)):
        middle = np.abs(x - MEAN) <= deviations * STD
        inside = judged[middle]
        mean = (data[middle] * inside).sum() / data[middle].sum()
        found |= {f"d_mean_{share}": float(mean), f"d_min_{share}": float(inside.min())}
        found |= {f"d_max_{share}": float(inside.max())}
    return found


def best(drawn: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """p_data / (p_data + p_g)."""
    data = density_of_data()
    return data / np.maximum(data + drawn, 1e-12)


def line(seed: int, d_steps: int, steps: int | None, workdir: Path) -> dict[str, Any]:
    """One game on a line: figures after the steps in LOOKS, and the curves after those in SHOWN."""
    config = shortened("gan_gaussian1d", steps, seed=seed, d_steps=d_steps, batch_size=512 * d_steps)
    z = jax.random.normal(jax.random.key(seed + 1), (DRAWS, config.generator.latent_dim))
    x = middles()
    generate = jax.jit(lambda variables: config.generator.apply(variables, z)[:, 0])
    judge = jax.jit(lambda variables: jax.nn.sigmoid(config.discriminator.apply(variables, x[:, None])))
    track, curves = [], {}

    def look(state) -> dict[str, float]:
        step = int(state.step)
        if step not in LOOKS:
            return {}
        points = np.asarray(generate(state.generator.variables))
        drawn, judged = density(points), np.asarray(judge(state.discriminator.variables), np.float64)
        figures = compare(drawn, judged)
        told = {**figures, "mean": float(points.mean()), "std": float(points.std())}
        track.append({"step": step, **{name: round(value, 5) for name, value in told.items()}})
        if step in SHOWN:
            curves[str(step)] = {"p_g": drawn.round(4).tolist(), "d": judged.round(4).tolist()}
        return figures

    state = play(config, workdir, 10, look)
    points = np.asarray(generate(state.ema_params))
    end = {**track[-1], "averaged_mean": float(points.mean()), "averaged_std": float(points.std())}
    return {"seed": seed, "d_steps": d_steps, "end": end, "track": track, "curves": curves}


def gaussian1d(seeds: int, steps: int | None, folder: Path) -> Iterator[dict[str, Any]]:
    """Games with one and with five steps of the discriminator to one of the generator; curves of the first seed."""
    for seed in range(seeds):
        for k in NAMES:
            run = line(seed, k, steps, folder / f"line-{k}-{seed}")
            yield run if seed == 0 else run | {"curves": {}}


def modes(points: Float[np.ndarray, "N 2"]) -> tuple[int, float]:
    """How many modes are covered, and the share of the points within REACH of one."""
    distances = np.linalg.norm(points[:, None] - CENTRES[None], axis=-1)
    shares = (distances < REACH).mean(0)
    return int((shares >= LEAST).sum()), float(shares.sum())


class Circle(NamedTuple):
    """A game on eight Gaussians."""

    loss: str
    penalty: str
    pressed: bool


def circle(game: Circle, seed: int, steps: int | None, workdir: Path) -> dict[str, Any]:
    """One game on a circle: what the averaged generator covers, and the log's figures over its last tenth."""
    began, config = perf_counter(), shortened("gan_8gaussians", steps, loss=game.loss, seed=seed, log_every=25)
    config = dataclasses.replace(config, regularizers=PENALTIES[game.penalty])
    if config.regularizers.lines:
        config = dataclasses.replace(config, d_steps=5, batch_size=5 * config.batch_size)
    if game.pressed:
        slow = dataclasses.replace(config.generator_optimizer, beta1=0.5)
        fast = dataclasses.replace(slow, learning_rate=10 * slow.learning_rate)
        config = dataclasses.replace(config, generator_optimizer=slow, discriminator_optimizer=fast)
    state = play(config, workdir)
    z = jax.random.normal(jax.random.key(seed + 1), (SAMPLES, config.generator.latent_dim))
    drawn = {name: np.asarray(config.generator.apply(variables, z))
             for name, variables in (("averaged", state.ema_params), ("last", state.generator.variables))}  # fmt: skip
    (covered, near), (last_covered, last_near) = modes(drawn["averaged"]), modes(drawn["last"])
    log = [json.loads(each) for each in (workdir / "metrics.jsonl").read_text().splitlines()]
    end = log[-max(len(log) // 10, 1) :]
    return {
        **game._asdict(),
        "seed": seed,
        "steps": config.steps,
        "modes": covered,
        "within_3_sigma": near,
        "last_modes": last_covered,
        "last_within_3_sigma": last_near,
        "diversity": float(np.mean([each["diversity"] for each in end])),
        "spread": float(np.mean([each["spread"] for each in end])),
        "seconds": round(perf_counter() - began, 1),
    }


def eight_gaussians(pressed: bool, seeds: int, steps: int | None, folder: Path) -> Iterator[dict[str, Any]]:
    """Every loss with and without R1, and Wasserstein's with the penalty that it was made for."""
    games = [
        Circle(loss, penalty, pressed) for loss in LOSSES for penalty in ("none", "R1, 1" if pressed else "R1, 0.1")
    ]
    for seed in range(seeds):
        for number, game in enumerate([*games, Circle("wasserstein", "lines, 0.1", pressed)]):
            yield circle(game, seed, steps, folder / f"circle-{number}-{seed}")


MEASURES = {
    "gaussian1d": gaussian1d,
    "eight_gaussians": functools.partial(eight_gaussians, False),
    "pressed": functools.partial(eight_gaussians, True),
}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """For one and for five steps of D a row of panels, like figure 1 of [Goodfellow14], and how far D is from its
    optimum below."""
    figure = Figure(figsize=(13, 8.6), dpi=110, layout="constrained")
    parts = figure.subfigures(3, 1, height_ratios=(1, 1, 0.95))
    for part, k in zip(parts, NAMES, strict=False):
        curves = next(run["curves"] for run in runs if run["d_steps"] == k and run["curves"])
        part.suptitle(f"{NAMES[k]} of D to one of G", x=0.01, ha="left", fontsize=14, fontweight="bold")
        panels = part.subplots(1, len(curves), sharex=True, sharey=True)
        for panel, (step, curve) in zip(panels, curves.items(), strict=True):
            draw_panel(panel, curve)
            panel.set_title(f"step {int(step):,}", fontsize=10)
        panels[0].set_ylabel("D, and densities")
        if k == 1:
            part.legend(
                *panels[0].get_legend_handles_labels(), ncols=4, loc="upper right", borderaxespad=0, frameon=False
            )
    draw_track(parts[2].subplots(), runs)
    figure.savefig(path)


def draw_panel(panel: Axes, curve: Mapping[str, list[float]]) -> None:
    """Densities on the scale of D: 1 is twice the data's peak."""
    x, data, drawn = middles(), density_of_data(), np.array(curve["p_g"])
    seen = data + drawn > 0.02
    scale = 2 * data.max()
    panel.fill_between(x, drawn / scale, color="tab:green", alpha=0.15, lw=0)
    panel.plot(x, drawn / scale, color="tab:green", lw=1.6, label="p_g")
    panel.plot(x, data / scale, ":", color="black", lw=1.8, label="p_data")
    panel.plot(x[seen], best(drawn)[seen], color="tab:orange", lw=1, label="optimal D")
    panel.plot(x, curve["d"], "--", color="tab:blue", lw=1.6, label="D")
    panel.axhline(0.5, color="0.85", lw=0.8, zorder=0)
    panel.set_xlim(MEAN - 1.1, MEAN + 1.1)
    panel.set_ylim(0, 1.02)
    panel.tick_params(labelsize=8)


def draw_track(axes: Axes, runs: list[dict[str, Any]]) -> None:
    """The mean difference over steps, the first run of each k in full colour."""
    for k, colour in zip(NAMES, ("tab:red", "tab:purple"), strict=True):
        for run in (run for run in runs if run["d_steps"] == k):
            first = run["seed"] == 0
            steps = [each["step"] for each in run["track"]]
            values = [each["mean_abs_difference"] for each in run["track"]]
            axes.plot(steps, values, color=colour, lw=1.6 if first else 0.8, alpha=1 if first else 0.4,
                      label=NAMES[k].lower() if first else None)  # fmt: skip
    axes.axhline(0.05, color="0.5", lw=0.8, ls="--")
    axes.text(10.3, 0.053, "0.05", color="0.4", fontsize=8, va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="mean |D - optimal D|", xlim=(10, max(steps)))
    axes.grid(alpha=0.25, which="both", lw=0.5)
    axes.legend(frameon=False)


def table(runs: list[dict[str, Any]]) -> str:
    """A line of Markdown a game: modes and share of every seed, and the mean over them of the log's figures."""
    lines = [
        "| loss | penalty | modes of 8 | within 3 sigma | `diversity` | `spread` |",
        "|---|---|---|---|---|---|",
    ]
    for loss, penalty in dict.fromkeys((run["loss"], run["penalty"]) for run in runs):
        of = [run for run in runs if (run["loss"], run["penalty"]) == (loss, penalty)]
        covered = ", ".join(str(run["modes"]) for run in of)
        near = ", ".join(f"{100 * run['within_3_sigma']:.1f}%" for run in of)
        means = (f"{np.mean([run[name] for run in of]):.2f}" for name in ("diversity", "spread"))
        lines.append(f"| {loss.replace('_', '-')} | {penalty} | {covered} | {near} | {' | '.join(means)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("game", choices=MEASURES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of every run; by default the experiment's")
    parser.add_argument("--from", dest="kept", type=Path, help="what --json wrote, instead of training")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parsed = parser.parse_args()
    if parsed.plot and parsed.game != "gaussian1d":
        parser.error("--plot is of gaussian1d")
    if parsed.kept:
        found = json.loads(parsed.kept.read_text())
    else:
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for run in MEASURES[parsed.game](parsed.seeds, parsed.steps, Path(folder)):
                found.append(run)
                if parsed.json:
                    parsed.json.write_text(json.dumps(found) + "\n")
    if parsed.plot:
        draw(found, parsed.plot)
    print(json.dumps([{k: v for k, v in run.items() if k not in ("track", "curves")} for run in found], indent=1))
    if parsed.game != "gaussian1d":
        print(table(found))


if __name__ == "__main__":
    main()
