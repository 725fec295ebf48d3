"""How fast a run is, how much of it remains, and when it draws."""

import contextlib
from collections.abc import Iterator
from time import perf_counter
from typing import Any

FIRST_LINE = 30.0
"""Seconds after which a run shows its first figures, if `log_every` steps take longer."""
DAY = 24 * 3600.0
MEASURED = (3, 10.0)
"""Steps and seconds that an estimate is made from: the first few steps after compiling still warm caches."""


class Clock:
    """How fast the run is, and which share of the time it waits for data."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self._started, self._shown, self._forecast = perf_counter(), False, False
        self.measure()
        self.restart()

    def measure(self) -> None:
        """Everything is compiled: an estimate is made of the steps from here on."""
        self._measured, self._finished = perf_counter(), 0

    def restart(self) -> None:
        """Forgets the rates up to here."""
        self._began, self._waited, self._steps = perf_counter(), 0.0, 0

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch.

        Raises:
            ValueError: if there is none.
        """
        asked = perf_counter()
        batch = next(batches, None)
        if batch is None:
            raise ValueError("the data ended before the run: expected batches without end")
        self._waited += perf_counter() - asked
        self._steps += 1
        return batch

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """The time inside is not spent on training, and counts neither in rates nor in estimates."""
        began = perf_counter()
        yield
        spent = perf_counter() - began
        self._began += spent
        self._measured += spent

    def rates(self) -> dict[str, float]:
        """Images per second and the share of time spent waiting for data, in [0, 1], since the last call."""
        seconds = perf_counter() - self._began
        rates = {"images_per_second": self._steps * self.batch_size / seconds, "input_wait": self._waited / seconds}
        self.restart()
        return rates

    def is_first_line_due(self, logged: bool) -> bool:
        """Whether FIRST_LINE seconds have passed since the start without figures; true once at most."""
        due = not (logged or self._shown) and perf_counter() - self._started >= FIRST_LINE
        self._shown = self._shown or due or logged
        return due

    def forecast(self, remaining: int) -> str | None:
        """Called after every finished step: once enough are measured, a line if `remaining` steps take over a day."""
        self._finished += 1
        seconds = perf_counter() - self._measured
        if self._forecast or self._finished < MEASURED[0] or seconds < MEASURED[1]:
            return None
        self._forecast = True
        each = seconds / self._finished
        if each * remaining <= DAY:
            return None
        return f"this run takes about {each * remaining / DAY:.1f} days here: {remaining} steps of {each:.3g} s"


def is_preview_due(step: int, every: int) -> bool:
    """Whether a run that draws `every` so many steps draws at `step`: at its multiples, which 0 is one of, and at a
    64th, a 16th and a quarter of it, so that what goes wrong is seen early at the price of three pictures."""
    return every > 0 and (step % every == 0 or step in (every // 64, every // 16, every // 4))
