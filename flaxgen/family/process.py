"""The noise process of a diffusion model as plain values: which schedule, what the net predicts, what it reads of the
time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from flaxgen.diffusion import denoise, schedules
from flaxgen.diffusion.denoise import Prediction, TimeInput
from flaxgen.train.config import require
from flaxgen.types import Schedule

Entry = TypeVar("Entry")
MOST_TIMESTEPS = 1_000_000
"""A table is held in memory."""


def choose(what: str, name: str, known: Mapping[str, Entry]) -> Entry:
    """The entry called `name`.

    Raises:
        ValueError: listing the known names.
    """
    require(name in known, f"{what}={name!r} is not known: expected one of {', '.join(known)}")
    return known[name]


@dataclass(frozen=True)
class Process:
    """`timesteps` is the length of the table, 0 for continuous time. `shift` multiplies sigma / alpha, for training at
    another resolution than the schedule was made for. `beta_start`, `beta_end` are those of the linear schedules
    at 1000 steps, `sigma_data` that of EDM preconditioning."""

    schedule: str = "linear"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    shift: float = 1.0
    prediction: str = "eps"
    sigma_data: float = 0.5

    def __post_init__(self):
        choose("schedule", self.schedule, schedules.SCHEDULES)
        choose("prediction", self.prediction, denoise.PREDICTIONS)
        require(0 <= self.timesteps <= MOST_TIMESTEPS, f"timesteps={self.timesteps}: expected a table of 1 to "
                f"{MOST_TIMESTEPS}, or 0 for continuous time")  # fmt: skip
        require(self.shift > 0, f"shift={self.shift}: expected a factor above 0")
        require(self.sigma_data > 0, f"sigma_data={self.sigma_data}: expected a number above 0")
        require(0 < self.beta_start <= self.beta_end < 1, f"beta_start={self.beta_start}, beta_end={self.beta_end}: "
                "expected 0 < beta_start <= beta_end < 1")  # fmt: skip
        require(
            not self.zero_terminal_snr or self.schedule in schedules.VARIANCE_PRESERVING,
            f"schedule={self.schedule!r} does not preserve variance: zero_terminal_snr needs one of "
            f"{', '.join(schedules.VARIANCE_PRESERVING)}",
        )
        require(
            not self.zero_terminal_snr or self.prediction in ("v", "x0", "flow"),
            f"prediction={self.prediction!r} says nothing of x0 at zero SNR: zero_terminal_snr needs v, x0 or flow",
        )


def make_schedule(process: Process) -> Schedule:
    """The schedule that the values name."""
    if process.schedule in ("linear", "scaled_linear"):
        make = {"linear": schedules.linear, "scaled_linear": schedules.scaled_linear}[process.schedule]
        schedule = make(process.timesteps, process.beta_start, process.beta_end)
    else:
        schedule = schedules.SCHEDULES[process.schedule](process.timesteps)
    if process.zero_terminal_snr:
        schedule = schedules.zero_terminal_snr(schedule, process.timesteps)
    return schedule if process.shift == 1 else schedules.shift(schedule, process.shift, process.timesteps)


def make_prediction(process: Process) -> Prediction:
    """What the net's output stands for."""
    if process.prediction == "edm":
        return denoise.edm(process.sigma_data)
    return denoise.PREDICTIONS[process.prediction]


def make_time_input(process: Process) -> TimeInput:
    """The table index for a table, log(sigma) / 4 under EDM preconditioning, else 1000 t."""
    if process.prediction == "edm":
        return denoise.quarter_log_sigma
    return denoise.table_index(process.timesteps) if process.timesteps else denoise.scaled_time()
