"""What every experiment's config says about its run, whatever it trains."""

import dataclasses

from flaxgen.train.optim import Ema, Optimizer

FREE = frozenset(
    {
        "steps",
        "log_every",
        "preview_every",
        "checkpoint_every",
        "keep_checkpoints",
        "start",
        "diverged_ratio",
        "diverged_steps",
    }
)
"""Fields that may change between two commands of one run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """How long a run is and what it leaves behind; the configs of the families inherit from it.

    `batch_size` is over all devices and hosts. A run logs, draws and saves every so many steps, and at its last;
    `preview_every=0` draws nothing, else the first pictures come early (`train.clock.is_preview_due`). The newest
    `keep_checkpoints` checkpoints stay. With `start`, a run or model directory of the same net, the run begins with its
    weights and the small files that belong to them (a tokenizer, statistics): to train on other data, or to tune what
    was imported. A run stops whose loss or norm of the gradients is more than `diverged_ratio` times its running value
    for `diverged_steps` steps in a row (0: never), and saves nothing meanwhile.

    Raises:
        ValueError: if a number is out of range.
    """

    seed: int
    steps: int
    batch_size: int
    log_every: int = 100
    preview_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    start: str = ""
    diverged_ratio: float = 1000.0
    diverged_steps: int = 50

    def __post_init__(self):
        least = {"seed": 0, "steps": 1, "batch_size": 1, "log_every": 1, "preview_every": 0, "checkpoint_every": 1}
        for name, lowest in (least | {"keep_checkpoints": 1, "diverged_steps": 0}).items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value < 2**31:
                raise ValueError(f"{name}={value!r} is out of range: expected an integer, {lowest} or more")
        if not self.diverged_ratio > 1:
            raise ValueError(f"diverged_ratio={self.diverged_ratio} is out of range: expected a number above 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientRun(Run):
    """A run that follows the gradient of one loss. `accumulate` splits each batch into that many parts, one after the
    other: same numbers, less memory.

    Raises:
        ValueError: if a number is out of range.
    """

    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    accumulate: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate}: expected a divisor of batch_size={self.batch_size}")
