"""Sampling from diffusion models of any kind: settings, and the walk from noise to data."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from flaxgen.diffusion import guidance, times
from flaxgen.diffusion.samplers import SAMPLERS, Churn, Grid, ancestral, ddim, euler, heun, sample
from flaxgen.family.process import choose
from flaxgen.train.config import require
from flaxgen.types import Bind, Condition, Denoiser, Params, PRNGKey, Sampler, Scalar, Schedule

THRESHOLDS: dict[str, Callable[[Denoiser, "Sampling"], Denoiser]] = {
    "clip": lambda denoise, kind: guidance.clip_x0(denoise, -kind.limit, kind.limit),
    "dynamic": lambda denoise, kind: guidance.dynamic_threshold(denoise, kind.quantile, kind.largest),
    "none": lambda denoise, kind: denoise,
}
UNBOUNDED = 1e9
"""A `largest` that no quantile reaches."""


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn, in `steps` along a `grid` of times. In a table, `offset` makes all times so many entries
    noisier, and `final` "first" ends at its first time, with a little noise left, instead of at 0. `shift` multiplies
    the sigma / alpha of all times of straight paths, for larger pictures [Esser24, eq. 23]. `threshold` "clip" keeps
    each prediction within `limit`, "dynamic" scales it back by its `quantile` of |x0|, of `largest` at most.
    `guidance` is the classifier-free scale (1: none); `rescale` in [0, 1] and `interval` in t shape it. `eta` is
    DDIM's, and so is `noise`: that which goes with the clipped x0 ("clipped"), or what the net predicts ("predicted").
    `variance` is the sampler ddpm's; `churn` (S_churn of [Karras22]), its range of sigma / alpha and `churn_scale`
    (S_noise) are Euler's and Heun's. Noise to `begin` with has the standard deviation that the schedule says, or, as in
    diffusers where a table keeps a little signal, that of "unit" noise. At most `batch` are drawn at once."""

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
    quantile: float = 0.995
    largest: float = UNBOUNDED
    offset: int = 0
    final: Literal["zero", "first"] = "zero"
    noise: Literal["clipped", "predicted"] = "clipped"
    begin: Literal["schedule", "unit"] = "schedule"
    shift: float = 1.0

    def __post_init__(self):
        choose("sampler", self.sampler, SAMPLERS)
        choose("grid", self.grid, times.TIME_GRIDS)
        choose("threshold", self.threshold, THRESHOLDS)
        require(self.steps >= 1, f"steps={self.steps}: expected 1 or more")
        require(math.isfinite(self.guidance), f"guidance={self.guidance}: expected a number, 1 for none")
        require(0 <= self.eta <= 1, f"eta={self.eta}: expected a number in [0, 1]")
        require(0 <= self.rescale <= 1, f"rescale={self.rescale}: expected a number in [0, 1]")
        require(self.limit > 0, f"limit={self.limit}: expected a number above 0")
        require(0 <= self.quantile <= 1, f"quantile={self.quantile}: expected a share in [0, 1]")
        require(self.largest >= 1, f"largest={self.largest}: expected 1 or more")
        require(self.churn >= 0, f"churn={self.churn}: expected 0 or more")
        require(
            math.isfinite(self.shift) and self.shift > 0, f"shift={self.shift}: expected a factor above 0, 1 for none"
        )
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
    """What shapes every prediction, where the sampler does not do that itself."""
    return (lambda denoise: denoise) if _shapes_itself(kind) else functools.partial(_shaped, kind)


def _shapes_itself(kind: Sampling) -> bool:
    return kind.sampler == "ddim" and kind.noise == "predicted"


def _shaped(kind: Sampling, denoise: Denoiser) -> Denoiser:
    return THRESHOLDS[kind.threshold](denoise, kind)


def make_sampler(sampling: Sampling, schedule: Schedule, eta: Scalar) -> Sampler:
    """The sampler that the values name."""
    churn = (
        Churn(sampling.churn / sampling.steps, *sampling.churn_range, sampling.churn_scale) if sampling.churn else None
    )

    shape = functools.partial(_shaped, sampling)
    configured = {
        "ddpm": lambda: ancestral(schedule, sampling.variance),
        "ddim": lambda: ddim(schedule, eta, shape) if _shapes_itself(sampling) else ddim(schedule, eta),
        "euler": lambda: euler(schedule, churn),
        "heun": lambda: heun(schedule, churn),
    }
    return configured.get(sampling.sampler, lambda: SAMPLERS[sampling.sampler](schedule))()


class Subject(NamedTuple):
    """What a family lets be drawn: `bind(params)` waits for a condition, `shape` is that of one example, and `null`
    makes of a condition the one that says nothing (None: the model knows no such)."""

    schedule: Schedule
    timesteps: int
    shape: tuple[int, ...]
    bind: Callable[[Params], Bind]
    null: Callable[[Condition], Condition] | None


def make_draw(subject: Subject, kind: Sampling, log_prob: Callable | None = None):
    """`make_draw_one` over a batch: `draw(strengths, {"key": Keys[B], "condition": ..., "target": ...}) -> [B ...]`."""
    return jax.vmap(make_draw_one(subject, kind, log_prob), (None, 0))


def make_draw_one(subject: Subject, kind: Sampling, log_prob: Callable | None = None):
    """`draw(strengths, {"key": ..., "condition": ..., "target": ...}) -> [...]`: a picture follows from its key.

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

    return draw_one


def make_grid(subject: Subject, kind: Sampling) -> Float[np.ndarray, " N"]:
    """The times from noise to data.

    Raises:
        ValueError: if there are more steps than the table has, no table where one is needed, or a shift where paths
            are not straight.
    """
    schedule = subject.schedule if kind.shift == 1 else times.shifted(subject.schedule, kind.shift)
    grid = times.TIME_GRIDS[kind.grid](schedule, kind.steps, subject.timesteps)
    grid = times.shift_time(grid.astype(np.float64), kind.shift).astype(np.float32) if kind.shift != 1 else grid
    grid = times.later(grid, kind.offset, subject.timesteps) if kind.offset else grid
    return times.to_first(grid, subject.timesteps) if kind.final == "first" else grid


def walk(
    subject: Subject,
    kind: Sampling,
    eta: Scalar,
    denoise: Denoiser,
    key: PRNGKey,
    *,
    x_T: Float[Array, "1 ..."] | None = None,
    edit: Callable[[Sampler], Sampler] = lambda sampler: sampler,
    grid: Grid | None = None,
) -> Float[Array, "1 ..."]:
    """One example from noise, which is `x_T` where it is given; `edit` makes another sampler of the one named. The
    times are `grid` where they are given, or those that `kind` says."""
    times = make_grid(subject, kind) if grid is None else grid
    noise_key, sample_key = jax.random.split(key)
    if x_T is None:
        first = float(times[0]) if isinstance(times, np.ndarray) else times.times[0]
        std = 1.0 if kind.begin == "unit" else subject.schedule(first).sigma
        x_T = std * jax.random.normal(noise_key, (1, *subject.shape))
    sampler = edit(make_sampler(kind, subject.schedule, eta))
    return sample(sampler, threshold(kind)(denoise), x_T, times, sample_key)


def guided(subject: Subject, kind: Sampling, strengths: Strengths, condition: Condition) -> Denoiser:
    """The denoiser of the condition, with classifier-free guidance where `kind` asks for it."""
    bind = subject.bind(strengths.params)
    denoise = bind(condition)
    if kind.guidance == 1 or subject.null is None:
        return denoise
    null = subject.null(condition)
    free = guidance.classifier_free(bind, condition, null, strengths.guidance, strengths.rescale)
    return free if kind.interval == (0.0, 1.0) else guidance.limited_interval(free, denoise, *strengths.interval)
