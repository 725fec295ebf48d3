"""Checkpoints that load whole or not at all; the only file that imports Orbax.

Orbax writes the arrays but keeps no sums of them. A step is therefore written as `saving-STEP`, gets a manifest with
the sha256 of every file, and only then takes the name `STEP`, by one rename. So whatever bears a number is complete,
and what differs from its manifest was damaged later. `restore` and `read` verify, name what is bad, and take the
newest step that is good.
"""

import concurrent.futures
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flaxgen import parallel
from flaxgen.lazy import Lazy
from flaxgen.types import State

ocp: Any = Lazy("orbax.checkpoint.experimental.v1")
MANIFEST = "manifest.json"
SAVING = "saving-"
DAMAGED = ".damaged"
NONE, NONE_GOOD = -1, -2


class Checkpoints:
    """The saved steps of one run, of which the newest `keep` stay.

    `save` returns while the writing goes on behind training; leaving the context waits for it. A write that failed
    raises OSError at the next call of any method; the steps before it are untouched.
    """

    def __init__(self, directory: Path, *, keep: int):
        self.directory = Path(directory).absolute()
        self.keep = keep
        self.newest: int | None = None
        self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: concurrent.futures.Future | None = None
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
        try:
            response = ocp.save_async(str(self.directory / f"{SAVING}{step}"), state)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failure(step, error) from error
        self._writing = self._executor.submit(self._finish, step, response, leaf_specs(state))
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
        _check_specs(path, leaf_specs(abstract))
        state = ocp.load(str(path), abstract)
        self.newest = step
        return step, state

    def _choose(self) -> int:
        """The newest good step, as process 0 sees it; says no by number, so that all processes hear of it."""
        if parallel.process_index() != 0:
            return NONE
        try:
            good = newest_good(self.directory)
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
                _write_manifest(saving, specs)
                saving.rename(self.directory / str(step))
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

    For looking at a run without its optimizer; changes nothing on disk.

    Raises:
        FileNotFoundError: if nothing was saved.
        ValueError: if no step is good, or the state has no such field.
    """
    directory = Path(directory).absolute()
    step = newest_good(directory) if directory.is_dir() else None
    if step is None:
        raise FileNotFoundError(f"{directory}: no checkpoint has been saved here")
    path = directory / str(step)
    saved = ocp.metadata(str(path)).metadata
    if missing := [name for name in names if name not in saved]:
        raise ValueError(f"{path} has no {missing[0]!r}; it has {', '.join(saved)}")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def wanted(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)

    abstract = {k: jax.tree.map(wanted if k in names else lambda _: ocp.PLACEHOLDER, v) for k, v in saved.items()}
    loaded: Any = ocp.load(str(path), abstract)
    return step, {name: loaded[name] for name in names}


def steps_in(directory: Path) -> list[int]:
    """What bears the number of a step, in order."""
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch("0|[1-9][0-9]*", path.name))


def newest_good(directory: Path) -> int | None:
    """The newest step that is as it was written; None where there are no steps. Says on stderr which it passes over.

    Raises:
        ValueError: if there are steps, but no good one.
    """
    steps = steps_in(directory)
    for step in reversed(steps):
        fault = find_fault(directory / str(step))
        if fault is None:
            return step
        print(f"flaxgen: checkpoint {directory / str(step)} is skipped: {fault}", file=sys.stderr)
    if steps:
        raise ValueError(f"{directory}: none of the checkpoints can be loaded: {', '.join(map(str, steps))}")
    return None


def find_fault(path: Path) -> str | None:
    """What is wrong with a saved step, naming the file; None if every byte is as it was written."""
    if not path.is_dir():
        return "not a directory"
    if not any(path.iterdir()):
        return "an empty directory"
    try:
        files = _read_manifest(path)["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name, (size, digest) in files.items():
        try:
            found = (path / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if _sha256(path / name) != digest:
                return f"{name} has changed since it was written (sha256 differs)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def leaf_specs(tree) -> dict[str, str]:
    """Of every leaf, by its path in the tree, dtype and shape, as in `float32[64,64]`."""

    def spec(x):
        dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
        return f"{dtype}[{','.join(map(str, jnp.shape(x)))}]"

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): spec(x) for path, x in leaves}


def _check_specs(path: Path, wanted: dict[str, str]) -> None:
    """Orbax checks names and shapes but casts dtypes in silence."""
    saved = _read_manifest(path)["leaves"]
    for name in sorted(saved.keys() | wanted.keys()):
        has, wants = saved.get(name, "no such array"), wanted.get(name, "no such array")
        if has != wants:
            raise ValueError(f"{path}: {name} is {has}, the experiment has {wants}: was its config changed?")


def _write_manifest(path: Path, specs: dict[str, str]) -> None:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    sums = {file.relative_to(path).as_posix(): [file.stat().st_size, _sha256(file)] for file in files}
    content = {"files": sums, "leaves": specs}
    (path / MANIFEST).write_text(json.dumps({"sha256": _content_sum(content), "content": content}, indent=1))


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = json.loads((path / MANIFEST).read_text())
    if _content_sum(manifest["content"]) != manifest["sha256"]:
        raise ValueError(f"{path / MANIFEST} is damaged")
    return manifest["content"]


def _content_sum(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _told_by_us(record: logging.LogRecord) -> bool:
    """Orbax logs a failed write with a traceback for each of its threads; `Checkpoints` raises it as one line."""
    return "_SignalingThread.run() raised" not in record.getMessage()
