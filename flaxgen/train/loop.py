"""The loop that every run goes through: steps, logs, previews, checkpoints, and what happens when it is interrupted."""

import collections
import contextlib
import math
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flaxgen import parallel
from flaxgen.train import same_data
from flaxgen.train.checkpoint import Checkpoints
from flaxgen.train.clock import Clock, is_preview_due
from flaxgen.train.divergence import ADVICE, Divergence, watched
from flaxgen.train.lock import locked
from flaxgen.train.log import RunLog, Tracker, rewind, scalars
from flaxgen.train.run import Run
from flaxgen.train.stop import stop_requests
from flaxgen.types import Experiment, Metrics, PRNGKey, State, TrainStep

MakeBatches = Callable[[int], Iterator[Mapping[str, np.ndarray]]]
"""Of the steps already done, to the batches of the steps after: this process's share of each, without end."""
AHEAD = 2
"""Steps that may wait on the device: enough to keep it busy, few enough to stop soon and to hold few batches."""
PROFILED = 5
"""Steps in a profile: it begins with the third of a run, when everything is compiled."""


class Extras(NamedTuple):
    """`counters` is asked for more numbers at every logged step (skipped images); `trackers` get every logged
    step; `profile` writes a trace of a few steps to `workdir/profile`. Every `evaluate_every` steps (0: never), and
    after the last, `evaluate` is asked for figures of the state, which are logged; every process asks it.
    `fingerprint` is that of the config (`train.config.fingerprint`): checkpoints of other configs are not taken.
    `data` is the identity of the data, {} for none; a run goes on with other data only if `accept_new_data`."""

    counters: Callable[[], Mapping[str, float]] = dict
    trackers: tuple[Tracker, ...] = ()
    profile: bool = False
    evaluate_every: int = 0
    evaluate: Callable[[State], Mapping[str, float]] = lambda state: {}
    fingerprint: str = ""
    data: Mapping[str, Any] = MappingProxyType({})
    accept_new_data: bool = False

    def evaluates(self, step: int, steps: int) -> bool:
        """Whether it is asked after `step` of `steps`."""
        return self.evaluate_every > 0 and (step == steps or step % self.evaluate_every == 0)


class Keys(NamedTuple):
    """What a run draws from, all from its seed."""

    init: PRNGKey
    train: PRNGKey
    preview: PRNGKey


def run(
    experiment: Experiment,
    settings: Run,
    workdir: Path,
    plan: parallel.Plan,
    make_batches: MakeBatches,
    extras: Extras = Extras(),  # noqa: B008 (immutable)
) -> State:
    """Trains to `settings.steps`, from the newest good checkpoint in `workdir` if there is one; returns the state.

    On the same devices and data a resumed run is bit for bit the run that was never interrupted.

    Raises:
        ValueError: if the devices do not divide the batch, another run trains in `workdir`, the run is past
            `settings.steps`, its data have changed, or there are checkpoints and none can be loaded.
        FloatingPointError: if the loss or the state is not a number, or the run has diverged; the last good checkpoint
            stays.
        OSError: if the disk is full; the last good checkpoint stays.
        SystemExit: 128 + the signal's number, after SIGTERM or SIGINT and a checkpoint of the step then reached.
    """
    parallel.check_batch(settings.batch_size, plan)
    workdir = Path(workdir)
    with (
        locked(workdir),
        Checkpoints(workdir / "checkpoints", keep=settings.keep_checkpoints, config=extras.fingerprint) as checkpoints,
        stop_requests() as stop_after,
    ):
        step, state = _begin(experiment, plan, checkpoints, _keys(settings.seed).init)
        _check_reached(step, settings.steps, workdir)
        changed = same_data.keep(workdir, step, extras.data, extras.accept_new_data) if step < settings.steps else ""
        if parallel.process_index() == 0:
            logged = step % settings.log_every == 0 or extras.evaluates(step, settings.steps) or step == settings.steps
            rewind(workdir / "metrics.jsonl", step, logged=logged)
        if step == settings.steps:
            return plan.single(state)
        with RunLog(workdir, step, settings.steps, extras.trackers) as log:
            if step:
                log.say(f"resumed after step {step}")
            if changed:
                log.say(changed)
            divergence = Divergence(settings.diverged_ratio, settings.diverged_steps)
            training = _Training(experiment, settings, plan, checkpoints, log, extras, divergence)
            with contextlib.closing(_closable(make_batches(step))) as batches:
                return training.run(step, state, batches, stop_after)


def _begin(experiment: Experiment, plan: parallel.Plan, checkpoints: Checkpoints, key: PRNGKey) -> tuple[int, State]:
    abstract = plan.abstract(jax.eval_shape(experiment.init, key))
    step, state = checkpoints.restore(abstract) or (0, None)
    return step, plan.place_state(experiment.init(key) if state is None else state)


def _check_reached(step: int, steps: int, workdir: Path) -> None:
    """Says so where there is nothing to do.

    Raises:
        ValueError: if there is less than nothing to do.
    """
    if step > steps:
        raise ValueError(f"{workdir} is at step {step} already: expected --steps {step} or more, got {steps}")
    if step == steps and parallel.process_index() == 0:
        print(f"{workdir} is already at step {step} of {steps}: nothing to do", file=sys.stderr)


def _keys(seed: int) -> Keys:
    return Keys(*jax.random.split(jax.random.key(seed), 3))


def _closable(batches: Iterator) -> Generator:
    """A generator, so that leaving the loop ends the loader's threads whatever kind of iterator it gave."""
    yield from batches


class _Training(NamedTuple):
    """What stays the same from the first step to the last."""

    experiment: Experiment
    settings: Run
    plan: parallel.Plan
    checkpoints: Checkpoints
    log: RunLog
    extras: Extras
    divergence: Divergence

    def run(self, start: int, state: State, batches: Iterator, stop_after: Callable[[int], int]) -> State:
        train_step = self.plan.compile_step(self.experiment.make_train_step)
        key, clock, seen = _keys(self.settings.seed).train, Clock(self.settings.batch_size), set()
        dispatched, signum = collections.deque(), 0
        if start == 0:
            self._draw(start, state, clock)
        with _profile(self.log.workdir / "profile", start + 3, self.extras.profile) as profile:
            for step in range(start + 1, self.settings.steps + 1):
                profile(step)
                batch = self.plan.place_batch(clock.next(batches))
                if step == start + 1:
                    state, metrics = self._first_step(train_step, state, batch, clock)
                    self.divergence.note(step, scalars(watched(metrics)))
                    seen.add(_shapes(batch))
                else:
                    with self._compiled(_shapes(batch), seen, state, clock):
                        state, metrics = train_step(state, batch, key)
                    self.log.advance()
                    dispatched.append(metrics)
                if len(dispatched) > AHEAD:
                    self._finished(step - AHEAD, dispatched.popleft(), clock)
                signum = stop_after(step)
                self._after(step, state, metrics, clock, bool(signum))
                if signum:
                    break
        self.checkpoints.wait()
        if signum:
            self.log.say(f"stopped by {signal.Signals(signum).name} after step {step}; the same command resumes")
            raise SystemExit(128 + signum)
        return self.plan.single(state)

    def _first_step(self, train_step: TrainStep, state: State, batch: Any, clock: Clock) -> tuple[State, Metrics]:
        """The first step, which compiles: says so and takes the time, which would spoil rates and estimates."""
        devices = f"{self.plan.devices} {jax.devices()[0].device_kind}"
        self.log.say(f"compiling the train step: {self.plan.name} on {devices}, batch {self.settings.batch_size}")
        began = perf_counter()
        state, metrics = jax.block_until_ready(train_step(state, batch, _keys(self.settings.seed).train))
        self.log.say(f"compiled, and took the first step, in {perf_counter() - began:.1f} s")
        self.log.start_measuring()
        clock.measure()
        if self.settings.log_every > 1:
            clock.restart()
        return state, metrics

    @contextlib.contextmanager
    def _compiled(self, shapes: tuple, seen: set[tuple], state: State, clock: Clock) -> Iterator[None]:
        """Around a step: the first of a batch of other shapes than were `seen` compiles, which counts in no rate."""
        if shapes in seen:
            yield
            return
        seen.add(shapes)
        jax.block_until_ready(state)
        self.log.say("compiling the train step for batches of another shape")
        with clock.pause():
            yield

    def _finished(self, step: int, metrics: Metrics, clock: Clock) -> None:
        """Waits for the step that makes these."""
        self.divergence.note(step, scalars(watched(metrics)))
        if line := clock.forecast(self.settings.steps - step):
            self.log.say(line)

    def _after(self, step: int, state: State, metrics: Metrics, clock: Clock, stopping: bool) -> None:
        settings, last = self.settings, step == self.settings.steps
        evaluates = self.extras.evaluates(step, settings.steps)
        logs = last or evaluates or step % settings.log_every == 0
        if logs:
            self.checkpoints.check()
            numbers = {**_finite(step, metrics), **clock.rates(), **self.extras.counters()}
            if evaluates and not stopping:
                with clock.pause():
                    numbers |= self.extras.evaluate(self.plan.single(state))
            self.log.write(step, numbers)
        if clock.is_first_line_due(logs):
            self.log.show(step, _finite(step, metrics))
        due = step % settings.checkpoint_every == 0 and not self.divergence.is_suspect(_finite(step, metrics))
        if last or stopping or due:
            self._save(step, state, metrics)
        if not stopping and (last or is_preview_due(step, settings.preview_every)):
            self._draw(step, state, clock)

    def _save(self, step: int, state: State, metrics: Metrics) -> None:
        """Never saves what cannot be gone on from."""
        _finite(step, metrics)
        single = self.plan.single(state)
        for name, bad in jax.device_get(_nans(single)).items():
            if bad:
                raise FloatingPointError(f"{name} is nan after step {step}; {ADVICE}")
        self.checkpoints.save(step, single)

    def _draw(self, step: int, state: State, clock: Clock) -> None:
        if self.experiment.preview is None or not self.settings.preview_every:
            return
        jax.block_until_ready(state)  # the steps before are not part of the pause
        with clock.pause():
            whole = parallel.local(self.plan.single(state))
            if parallel.process_index() == 0:
                self.log.picture(step, self.experiment.preview(whole, _keys(self.settings.seed).preview))


def _shapes(batch: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch))


def _finite(step: int, metrics: Metrics) -> dict[str, float]:
    """The metrics as numbers; waits for the step.

    Raises:
        FloatingPointError: if a loss or the norm of the gradients is nan or infinite.
    """
    numbers = scalars(metrics)
    for name, value in watched(numbers).items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value} at step {step}; {ADVICE}")
    return numbers


@jax.jit
def _nans(state: State) -> dict[str, Array]:
    """Of every array of floats, by its path, whether it holds a nan."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    return {name: jnp.isnan(x).any() for name, x in named.items() if jnp.issubdtype(x.dtype, jnp.floating)}


@contextlib.contextmanager
def _profile(directory: Path, first: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Yields what to call before every step: traces the steps from `first` on, PROFILED of them."""
    tracing = False

    def before(step: int) -> None:
        nonlocal tracing
        if wanted and step == first:
            jax.profiler.start_trace(str(directory))
            tracing = True
        elif tracing and step == first + PROFILED:
            jax.profiler.stop_trace()
            tracing = False

    try:
        yield before
    finally:
        if tracing:
            jax.profiler.stop_trace()
