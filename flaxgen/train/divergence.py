"""Telling a run that has diverged from one that jumps."""

import math
from collections.abc import Mapping
from typing import Any

MEMORY = 100
"""Steps that the running value remembers."""
ADVICE = "nothing newer than the last checkpoint is kept: lower the learning rate, or clip the gradients"


class Divergence:
    """Watches losses and the norm of the gradients, each beside its running value.

    That is the geometric mean of the last MEMORY steps or so: it lags behind exponential growth, where an arithmetic
    mean keeps pace, and one jump does not move it. Magnitudes below 1 count as 1, since a loss that starts at zero, as
    that of a Wasserstein critic does, or ends there may multiply by any factor in a good run. A value that exceeds
    `ratio` times the running one does not enter it; after `steps` such steps in a row the run has diverged. `steps=0`
    watches nothing.
    """

    def __init__(self, ratio: float, steps: int):
        self.ratio, self.steps = ratio, steps
        self._running: dict[str, tuple[float, int]] = {}
        self._row: dict[str, int] = {}

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes in what was measured of a step.

        Raises:
            FloatingPointError: if the run has diverged.
        """
        if not self.steps:
            return
        for name, value in sorted(watched(metrics).items(), key=lambda item: item[0] != "loss"):
            if self.excess(name, value) > self.ratio:
                self._row[name] = self._row.get(name, 0) + 1
                if self._row[name] >= self.steps:
                    raise FloatingPointError(self._verdict(step, name, value))
                continue
            self._row[name] = 0
            mean, count = self._running.get(name, (0.0, 0))
            count = min(count + 1, MEMORY)
            self._running[name] = (mean + (_log(value) - mean) / count, count)

    def excess(self, name: str, value: float) -> float:
        """The value over its running one; 1 where there is none yet, infinite for what is no number."""
        if not math.isfinite(value):
            return math.inf
        if name not in self._running:
            return 1.0
        exponent = _log(value) - self._running[name][0]
        return math.exp(exponent) if exponent < 700 else math.inf

    def is_suspect(self, metrics: Mapping[str, float]) -> bool:
        """Whether a state of these metrics is none to resume from."""
        return self.steps > 0 and any(self.excess(name, x) > self.ratio for name, x in watched(metrics).items())

    def _verdict(self, step: int, name: str, value: float) -> str:
        usual = math.exp(self._running[name][0]) if name in self._running else 1.0
        return (
            f"{name} is {value:.4g} at step {step}, and has been more than {self.ratio:g} times its running value of "
            f"{usual:.4g} for {self.steps} steps; {ADVICE}"
        )


def watched(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Those metrics that have to stay finite, and near what they were: losses and the norm of the gradients."""
    return {name: value for name, value in metrics.items() if "loss" in name or name == "grad_norm"}


def _log(value: float) -> float:
    return math.log(max(abs(value), 1.0))
