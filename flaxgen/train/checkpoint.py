"""Checkpoints that load whole or not at all; the only file that imports Orbax.

Orbax writes the arrays but keeps no sums of them. A step is therefore written as `saving-STEP`, gets a manifest with
the sha256 of every file and the number of the step, is brought to disk, and only then takes the name `STEP`, by one
rename. So whatever bears a number is complete, and what differs from its manifest was damaged or renamed later.
`restore` and `read` verify, name what is bad, and take the newest step that is good. Frozen weights are the same at
every step: they are written once, as `frozen-HASH`, which the manifests of the steps name.
"""

import concurrent.futures
import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax

from flaxgen import parallel
from flaxgen.lazy import Lazy
from flaxgen.train.manifest import FROZEN, check_specs, find_fault, leaf_specs, read_manifest, sync, write_manifest
from flaxgen.types import Held, Params, State

ocp: Any = Lazy("orbax.checkpoint.experimental.v1")
SAVING = "saving-"
DAMAGED = ".damaged"
NONE, NONE_GOOD = -1, -2


class Checkpoints:
    """The saved steps of one run, of which the newest `keep` stay; `config` is the fingerprint of the run's config, by
    which steps of other runs are known ("": it is not checked).

    `save` returns while the writing goes on behind training; leaving the context waits for it. A write that failed
    raises OSError at the next call of any method; the steps before it are untouched.
    """

    def __init__(self, directory: Path, *, keep: int, config: str = ""):
        self.directory = Path(directory).absolute()
        self.keep, self.config = keep, config
        self.newest: int | None = None
        self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: concurrent.futures.Future | None = None
        self._frozen = ""
        logging.getLogger("absl").addFilter(_told_by_us)
        if parallel.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self.wait()
        except OSError as failure:
            if error is None:
                raise
            print(f"flaxgen: {failure}", file=sys.stderr)
        finally:
            self._executor.shutdown()

    def save(self, step: int, state: State) -> None:
        """Starts to write the state, which may be donated afterwards; a step that is there already is left alone.

        Raises:
            OSError: if this or the write before it failed, with the path and the reason.
        """
        if step == self.newest:
            return
        self.wait()
        moving, frozen = _split(state)
        try:
            if jax.tree.leaves(frozen) and not self._frozen:
                self._save_frozen(frozen)
            response = ocp.save_async(str(self.directory / f"{SAVING}{step}"), moving)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failure(step, error) from error
        self._writing = self._executor.submit(self._finish, step, response, leaf_specs(moving))
        self.newest = step

    def wait(self) -> None:
        """Returns when what was saved is complete on disk."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def check(self) -> None:
        """Raises what a finished write has to say, without waiting for one that is not."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def restore(self, abstract: State) -> tuple[int, State] | None:
        """The newest good step and its state, straight into the shardings of `abstract`; None where nothing was saved.

        Damaged steps newer than it are renamed out of the way of the steps to come.

        Raises:
            ValueError: if there are steps but no good one, or if a leaf differs from `abstract` in shape or dtype.
        """
        step = parallel.agree(self._choose())
        if step == NONE:
            return None
        if step == NONE_GOOD:
            raise ValueError(f"{self.directory}: no checkpoint can be loaded; move the directory away to start anew")
        path = self.directory / str(step)
        moving, frozen = _split(abstract)
        check_specs(path, leaf_specs(moving))
        self._frozen = read_manifest(path).frozen
        if bool(self._frozen) != bool(jax.tree.leaves(frozen)):
            has, wants = ("frozen weights" if some else "none" for some in (self._frozen, jax.tree.leaves(frozen)))
            raise ValueError(f"{path} has {has}, the experiment has {wants}: was its config changed?")
        loaded: Any = ocp.load(str(path), moving)
        if self._frozen:
            check_specs(self.directory / self._frozen, leaf_specs({FROZEN: frozen}))
            frozen = ocp.load(str(self.directory / self._frozen), {FROZEN: frozen})[FROZEN]
        self.newest = step
        return step, _join(abstract, loaded, frozen)

    def _save_frozen(self, frozen: Params) -> None:
        """Writes them, as all steps to come will need them."""
        saving = self.directory / f"{SAVING}{FROZEN}"
        ocp.save(str(saving), {FROZEN: frozen})
        self._frozen = FROZEN
        if parallel.process_index() == 0:
            for unused in self.directory.glob(f"{FROZEN}-*"):
                _remove(unused)
            self._frozen = write_manifest(saving, leaf_specs({FROZEN: frozen}))
            saving.rename(self.directory / self._frozen)
            sync(self.directory)

    def _choose(self) -> int:
        """The newest good step, as process 0 sees it; says no by number, so that all processes hear of it."""
        if parallel.process_index() != 0:
            return NONE
        try:
            good = newest_good(self.directory, self.config)
        except ValueError:
            return NONE_GOOD
        if good is None:
            return NONE
        for step in steps_in(self.directory):
            if step > good:
                aside = self.directory / f"{step}{DAMAGED}"
                _remove(aside)
                (self.directory / str(step)).rename(aside)
        return good

    def _finish(self, step: int, response, specs: dict[str, str]) -> None:
        try:
            response.result()
            if parallel.process_index() == 0:
                saving = self.directory / f"{SAVING}{step}"
                write_manifest(saving, specs, step=step, config=self.config, frozen=self._frozen)
                saving.rename(self.directory / str(step))
                sync(self.directory)
                for old in steps_in(self.directory)[: -self.keep]:
                    _remove(self.directory / str(old))
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failure(step, error) from error

    def _failure(self, step: int, error: Exception) -> OSError:
        """One line of whatever Orbax, TensorStore or the file system said; the torn step's space is given back."""
        if parallel.process_index() == 0:
            self._remove_unfinished()
        code = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(code[1]) if code else getattr(error, "errno", None) or 5
        reason = os.strerror(number) if code or isinstance(error, OSError) else str(error).splitlines()[0]
        left = steps_in(self.directory)
        kept = f"step {left[-1]} is the newest kept" if left else "no step is kept"
        return OSError(number, f"step {step} could not be saved ({reason}); {kept}", str(self.directory / str(step)))

    def _remove_unfinished(self) -> None:
        for path in self.directory.glob(f"{SAVING}*"):
            shutil.rmtree(path, ignore_errors=True)


def read(directory: Path, names: tuple[str, ...]) -> tuple[int, dict[str, Any]]:
    """The newest good step, and those fields of its state as nested dicts of arrays on one device.

    For looking at a run without its optimizer; changes nothing on disk. `held` has `statistics` and `frozen`, as far as
    there are any.

    Raises:
        FileNotFoundError: if nothing was saved.
        ValueError: if no step is good, or the state has no such field.
    """
    directory = Path(directory).absolute()
    step = newest_good(directory) if directory.is_dir() else None
    if step is None:
        raise FileNotFoundError(f"{directory}: no checkpoint has been saved here")
    path = directory / str(step)
    loaded, fields = _read_fields(path, set(names))
    if "held" in names:
        name = read_manifest(path).frozen
        frozen = _read_fields(directory / name, {FROZEN})[0] if name else {}
        loaded["held"] = {**loaded.get("held", {}), **frozen}
    if missing := [name for name in names if name not in loaded]:
        raise ValueError(f"{path} has no {missing[0]!r}; it has {', '.join(fields)}")
    return step, loaded


def _read_fields(path: Path, names: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Those fields that are in a checkpoint, on one device, and the names of all."""
    saved = ocp.metadata(str(path)).metadata
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def wanted(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)

    abstract = {k: jax.tree.map(wanted if k in names else lambda _: ocp.PLACEHOLDER, v) for k, v in saved.items()}
    loaded: Any = ocp.load(str(path), abstract) if names & saved.keys() else {}
    return {name: loaded[name] for name in names & saved.keys()}, list(saved)


def _split(state: State) -> tuple[State, Params]:
    """What is saved at every step, and what once. A field without arrays is not saved: version 0.1.0 had none such."""
    held = getattr(state, "held", None)
    if not isinstance(held, Held):
        return state, ()
    moving = {**state._asdict(), "held": {"statistics": held.statistics}}
    if not jax.tree.leaves(held.statistics):
        del moving["held"]
    return moving, held.frozen


def _join(like: State, moving: Any, frozen: Params) -> State:
    """The inverse of `_split`."""
    if not isinstance(getattr(like, "held", None), Held):
        return moving
    statistics = moving["held"]["statistics"] if "held" in moving else like.held.statistics
    return like._replace(**{**moving, "held": Held(statistics, frozen)})


def steps_in(directory: Path) -> list[int]:
    """What bears the number of a step, in order."""
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch("0|[1-9][0-9]*", path.name))


def newest_good(directory: Path, config: str = "") -> int | None:
    """The newest step that is as it was written, by a run of this config if that is known; None where there are no
    steps. Says on stderr which it passes over.

    Raises:
        ValueError: if there are steps, but no good one.
    """
    steps = steps_in(directory)
    for step in reversed(steps):
        fault = find_fault(directory / str(step), config)
        if fault is None:
            return step
        print(f"flaxgen: checkpoint {directory / str(step)} is skipped: {fault}", file=sys.stderr)
    if steps:
        raise ValueError(f"{directory}: none of the checkpoints can be loaded: {', '.join(map(str, steps))}")
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _told_by_us(record: logging.LogRecord) -> bool:
    """Orbax logs a failed write with a traceback for each of its threads; `Checkpoints` raises it as one line."""
    return "_SignalingThread.run() raised" not in record.getMessage()
