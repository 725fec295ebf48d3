"""Drawing from a trained diffusion model: one compiled program for each shape, step count and kind of guidance."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from flaxgen.diffusion import guidance, times
from flaxgen.diffusion.samplers import SAMPLERS, Churn, ancestral, ddim, euler, heun, sample
from flaxgen.train.config import require
from flaxgen.types import Bind, Condition, Denoiser, Params, PRNGKey, Sampler, Scalar, Schedule
from flaxgen.zoo.process import choose

THRESHOLDS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "clip": guidance.clip_x0,
    "dynamic": guidance.dynamic_threshold,
    "none": lambda denoise: denoise,
}


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn. `guidance` is the classifier-free scale (1: none); `rescale` in [0, 1] and `interval` in
    t shape it. `eta` is DDIM's, `variance` the sampler ddpm's; `churn` (S_churn of [Karras22]), its range of
    sigma / alpha and `churn_scale` (S_noise) are Euler's and Heun's. At most `batch` are drawn at once."""

    sampler: str = "ddim"
    steps: int = 50
    grid: str = "trailing"
    threshold: str = "clip"
    guidance: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    eta: float = 0.0
    variance: Literal["small", "large", "learned"] = "small"
    churn: float = 0.0
    churn_range: tuple[float, float] = (0.0, 1e6)
    churn_scale: float = 1.0
    batch: int = 64

    def __post_init__(self):
        choose("sampler", self.sampler, SAMPLERS)
        choose("grid", self.grid, times.TIME_GRIDS)
        choose("threshold", self.threshold, THRESHOLDS)
        require(self.steps >= 1, f"steps={self.steps}: expected 1 or more")
        require(0 <= self.eta <= 1, f"eta={self.eta}: expected a number in [0, 1]")
        require(0 <= self.rescale <= 1, f"rescale={self.rescale}: expected a number in [0, 1]")
        require(self.churn >= 0, f"churn={self.churn}: expected 0 or more")
        require(self.batch >= 1, f"batch={self.batch}: expected 1 or more")
        low, high = self.interval
        require(0 <= low < high <= 1, f"interval={self.interval}: expected 0 <= low < high <= 1")

    def kind(self) -> "Sampling":
        """What has to be compiled: these settings without those that `Strengths` carries."""
        whole = self.interval == (0.0, 1.0)
        interval = (0.0, 1.0) if whole else (0.0, 0.5)
        return replace(self, guidance=1.0 + (self.guidance != 1), rescale=0.0, interval=interval, eta=0.0)


class Strengths(NamedTuple):
    """What may change from call to call without compiling again."""

    params: Params
    guidance: Scalar
    rescale: Scalar
    interval: tuple[Scalar, Scalar]
    eta: Scalar
    classifier: Params = None
    classifier_scale: Scalar = 0.0


def make_sampler(sampling: Sampling, schedule: Schedule, eta: Scalar) -> Sampler:
    """The sampler that the values name."""
    churn = (
        Churn(sampling.churn / sampling.steps, *sampling.churn_range, sampling.churn_scale) if sampling.churn else None
    )
    configured = {
        "ddpm": lambda: ancestral(schedule, sampling.variance),
        "ddim": lambda: ddim(schedule, eta=eta),
        "euler": lambda: euler(schedule, churn),
        "heun": lambda: heun(schedule, churn),
    }
    return configured.get(sampling.sampler, lambda: SAMPLERS[sampling.sampler](schedule))()


class Subject(NamedTuple):
    """What a family lets be drawn: `bind(params)` waits for a condition, `shape` is that of one example, `null` the
    condition that says nothing (None: the model knows no such)."""

    schedule: Schedule
    timesteps: int
    shape: tuple[int, ...]
    bind: Callable[[Params], Bind]
    null: Condition | None


def make_draw(subject: Subject, kind: Sampling, log_prob: Callable | None = None):
    """`draw(strengths, {"key": Keys[B], "condition": ..., "target": ...}) -> [B ...]`: picture i follows from key i.

    `log_prob(classifier_params, target) -> ((x, t) -> [B])` adds classifier guidance.

    Raises:
        ValueError: if there are more steps than the table has.
    """
    grid = times.TIME_GRIDS[kind.grid](subject.schedule, kind.steps, subject.timesteps)

    def denoiser(strengths: Strengths, condition: Condition, target: Condition) -> Denoiser:
        denoise = guided(subject, kind, strengths, condition)
        if log_prob is not None:
            log_prob_of_x = log_prob(strengths.classifier, target)
            denoise = guidance.classifier(denoise, subject.schedule, log_prob_of_x, strengths.classifier_scale)
        return THRESHOLDS[kind.threshold](denoise)

    def draw_one(strengths, inputs):
        noise_key, sample_key = jax.random.split(inputs["key"])
        told = jax.tree.map(lambda x: x[None], (inputs["condition"], inputs["target"]))
        x_T = subject.schedule(float(grid[0])).sigma * jax.random.normal(noise_key, (1, *subject.shape))
        sampler = make_sampler(kind, subject.schedule, strengths.eta)
        return sample(sampler, denoiser(strengths, *told), x_T, grid, sample_key)[0]

    return jax.vmap(draw_one, (None, 0))


def guided(subject: Subject, kind: Sampling, strengths: Strengths, condition: Condition) -> Denoiser:
    """The denoiser of the condition, with classifier-free guidance where `kind` asks for it."""
    bind = subject.bind(strengths.params)
    denoise = bind(condition)
    if kind.guidance == 1 or subject.null is None:
        return denoise
    free = guidance.classifier_free(bind, condition, subject.null, strengths.guidance, strengths.rescale)
    return free if kind.interval == (0.0, 1.0) else guidance.limited_interval(free, denoise, *strengths.interval)


def draw_many(compiled: Callable, params: PyTree, key: PRNGKey, inputs: PyTree, *, num: int, batch: int) -> Any:
    """`compiled(params, {"key": ..., **inputs})` for `num` examples in equal batches, the last one filled up; leaves of
    `inputs` and of the result have a leading axis of `num`."""
    count = -(-num // batch) * batch
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    filled = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], count - num, 0)]), dict(inputs))
    rows = [slice(start, start + batch) for start in range(0, count, batch)]
    parts = [compiled(params, jax.tree.map(lambda x: x[row], {"key": keys, **filled})) for row in rows]  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:num], *parts)


def announced(draw: Callable, title: str) -> Callable:
    """Says what the first call compiles for, and how long it took."""
    calls = iter([True])

    def run(*arguments):
        if not next(calls, False):
            return draw(*arguments)
        print(f"compiling {title} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        result = jax.block_until_ready(draw(*arguments))
        print(f"compiled and drew the first batch in {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        return result

    return run
