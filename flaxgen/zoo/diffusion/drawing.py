"""Drawing from a trained diffusion model: one compiled program for each shape, step count and kind of guidance."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from flaxgen.diffusion import guidance, times
from flaxgen.diffusion.samplers import SAMPLERS, Churn, ancestral, ddim, euler, heun, sample
from flaxgen.train.config import require
from flaxgen.types import Bind, Condition, Denoiser, Params, PRNGKey, Sampler, Scalar, Schedule
from flaxgen.zoo.process import choose

THRESHOLDS: dict[str, Callable[[Denoiser, float], Denoiser]] = {
    "clip": lambda denoise, limit: guidance.clip_x0(denoise, -limit, limit),
    "dynamic": lambda denoise, limit: guidance.dynamic_threshold(denoise),
    "none": lambda denoise, limit: denoise,
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
    limit: float = 1.0
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
        require(math.isfinite(self.guidance), f"guidance={self.guidance}: expected a number, 1 for none")
        require(0 <= self.eta <= 1, f"eta={self.eta}: expected a number in [0, 1]")
        require(0 <= self.rescale <= 1, f"rescale={self.rescale}: expected a number in [0, 1]")
        require(self.limit > 0, f"limit={self.limit}: expected a number above 0")
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


def threshold(kind: Sampling) -> Callable[[Denoiser], Denoiser]:
    """What shapes every prediction."""
    return lambda denoise: THRESHOLDS[kind.threshold](denoise, kind.limit)


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
    what of a condition says nothing (None: the model knows no such)."""

    schedule: Schedule
    timesteps: int
    shape: tuple[int, ...]
    bind: Callable[[Params], Bind]
    null: Callable[[Condition], Condition] | None


def make_draw(subject: Subject, kind: Sampling, log_prob: Callable | None = None):
    """`draw(strengths, {"key": Keys[B], "condition": ..., "target": ...}) -> [B ...]`: picture i follows from key i.

    `log_prob(classifier_params, target) -> ((x, t) -> [B])` adds classifier guidance.

    Raises:
        ValueError: if there are more steps than the table has.
    """
    make_grid(subject, kind)

    def draw_one(strengths, inputs):
        condition, target = jax.tree.map(lambda x: x[None], (inputs["condition"], inputs["target"]))
        denoise = guided(subject, kind, strengths, condition)
        if log_prob is not None:
            log_prob_of_x = log_prob(strengths.classifier, target)
            denoise = guidance.classifier(denoise, subject.schedule, log_prob_of_x, strengths.classifier_scale)
        return walk(subject, kind, strengths.eta, denoise, inputs["key"])[0]

    return jax.vmap(draw_one, (None, 0))


def make_grid(subject: Subject, kind: Sampling) -> Float[np.ndarray, " N"]:
    """The times from noise to data.

    Raises:
        ValueError: if there are more steps than the table has.
    """
    return times.TIME_GRIDS[kind.grid](subject.schedule, kind.steps, subject.timesteps)


def walk(
    subject: Subject,
    kind: Sampling,
    eta: Scalar,
    denoise: Denoiser,
    key: PRNGKey,
    *,
    x_T: Float[Array, "1 ..."] | None = None,
    edit: Callable[[Sampler], Sampler] = lambda sampler: sampler,
) -> Float[Array, "1 ..."]:
    """One example from noise, which is `x_T` where it is given; `edit` makes another sampler of the one named."""
    grid = make_grid(subject, kind)
    noise_key, sample_key = jax.random.split(key)
    if x_T is None:
        x_T = subject.schedule(float(grid[0])).sigma * jax.random.normal(noise_key, (1, *subject.shape))
    sampler = edit(make_sampler(kind, subject.schedule, eta))
    return sample(sampler, threshold(kind)(denoise), x_T, grid, sample_key)


def guided(subject: Subject, kind: Sampling, strengths: Strengths, condition: Condition) -> Denoiser:
    """The denoiser of the condition, with classifier-free guidance where `kind` asks for it."""
    bind = subject.bind(strengths.params)
    denoise = bind(condition)
    if kind.guidance == 1 or subject.null is None:
        return denoise
    null = subject.null(condition)
    free = guidance.classifier_free(bind, condition, null, strengths.guidance, strengths.rescale)
    return free if kind.interval == (0.0, 1.0) else guidance.limited_interval(free, denoise, *strengths.interval)


def draw_many(
    compiled: Callable, params: PyTree, key: PRNGKey, inputs: PyTree, *, num: int, batch: int, first: int = 0
) -> Any:
    """`compiled(params, {"key": ..., **inputs})` for `num` examples in equal batches, the last one filled up; leaves of
    `inputs` and of the result have a leading axis of `num`. Their keys are those of the numbers from `first` on."""
    count = -(-num // batch) * batch
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(first, first + count, dtype=np.int32))
    filled = jax.tree.map(lambda x: np.concatenate([x, np.repeat(np.asarray(x)[-1:], count - num, 0)]), dict(inputs))
    rows = [slice(start, start + batch) for start in range(0, count, batch)]
    parts = [compiled(params, jax.tree.map(lambda x: x[row], {"key": keys, **filled})) for row in rows]  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:num], *parts)


def numbered(num: int | range) -> range:
    """The numbers of the pictures to draw, the first `num` or those given.

    Raises:
        ValueError: if there are none, or they do not follow one after the other.
    """
    numbers = range(num) if isinstance(num, int) else num
    require(len(numbers) >= 1 and numbers.step == 1, f"num={len(numbers)}: expected 1 or more, one after the other")
    return numbers


def finished(drawn: np.ndarray, pictures: bool) -> np.ndarray:
    """What was drawn; pictures are clipped to [-1, 1].

    Raises:
        FloatingPointError: if it is not finite.
    """
    if not np.isfinite(drawn).all():
        raise FloatingPointError("the samples are not finite: the model is broken, or is not what its config says")
    return np.clip(drawn, -1, 1) if pictures else drawn


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
