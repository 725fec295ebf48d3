"""What a run tells: metrics.jsonl, TensorBoard, a progress bar and previews."""

import contextlib
import functools
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from flaxgen import bounded_json, parallel
from flaxgen.lazy import Lazy

summary: Any = Lazy("tensorboardX.summary")
record_writer: Any = Lazy("tensorboardX.record_writer")
_pb: Any = Lazy("tensorboardX.proto.event_pb2")
Tracker = Callable[[int, Mapping[str, float]], None]
"""Gets (step, metrics) of every logged step."""


class RunLog:
    """The log of one run in `workdir`, which goes on after step `start`; on all processes but the first it is silent.

    Raises:
        OSError: where a write fails, with the path.
    """

    def __init__(self, workdir: Path, start: int, steps: int, trackers: tuple[Tracker, ...] = ()):
        self.workdir = Path(workdir)
        self.speaks = parallel.process_index() == 0
        self.trackers = trackers
        if not self.speaks:
            return
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._metrics = (self.workdir / "metrics.jsonl").open("ab", buffering=0)
        self._board = _Board(self.workdir / "tensorboard", start)
        often = 0.1 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(initial=start, total=steps, unit="step", mininterval=often, dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if self.speaks:
            self._bar.close()
            self._board.close()
            self._metrics.close()

    def advance(self) -> None:
        """One more step is on its way."""
        if self.speaks:
            self._bar.update()

    def start_measuring(self) -> None:
        """One more step is done, which compiled: its time is not in the estimate of what remains."""
        if self.speaks:
            self._bar.initial = self._bar.n = self._bar.last_print_n = self._bar.n + 1
            self._bar.unpause()
            self._bar.refresh()

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """The first figures, for the user's eyes: no line of metrics.jsonl, which does not depend on time."""
        figures = (f"{name} {metrics[name]:.4g}" for name in sorted(metrics, key=lambda name: name != "loss"))
        self.say(f"step {step}: {', '.join(figures)}")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds one line to metrics.jsonl, which is on disk when this returns, and a point to every curve."""
        if not self.speaks:
            return
        with _failure_named(self.workdir / "metrics.jsonl"):
            self._metrics.write(json.dumps({"step": step, **metrics}).encode() + b"\n")
        self._board.add(step, [summary.scalar(name, value) for name, value in metrics.items()])
        for track in self.trackers:
            track(step, metrics)
        shown = {"loss": "loss", "images_per_second": "images/s", "input_wait": "input wait"}
        self._bar.set_postfix({label: f"{metrics[k]:.4g}" for k, label in shown.items() if k in metrics}, refresh=False)

    def picture(self, step: int, image: UInt8[np.ndarray, "H W C"]) -> None:
        """Writes previews/step-XXXXXX.png, and shows it in TensorBoard."""
        if not self.speaks:
            return
        path = self.workdir / "previews" / f"step-{step:06d}.png"
        with _failure_named(path):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
        self._board.add(step, [summary.image("preview", image, dataformats="HWC")])

    def say(self, text: str) -> None:
        """A line for the user, above the progress bar."""
        if self.speaks:
            tqdm.write(text, file=sys.stderr)


class _Board:
    """A TensorBoard event file, written in this thread: tensorboardX's own writer fails in another one, unheard."""

    def __init__(self, directory: Path, start: int):
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"events.out.tfevents.{time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._records = record_writer.RecordWriter(str(self.path))
        self._put(_pb.Event(file_version="brain.Event:2"))
        if start:  # hides what an interrupted run wrote of the steps to come
            self._put(_pb.Event(step=start + 1, session_log=_pb.SessionLog(status=_pb.SessionLog.START)))

    def add(self, step: int, summaries: list[Any]) -> None:
        for content in summaries:
            self._put(_pb.Event(step=step, summary=content))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a failed write has been raised, and fails again here
            self._records.close()

    def _put(self, event: Any) -> None:
        event.wall_time = time()
        with _failure_named(self.path):
            self._records.write(event.SerializeToString())
            self._records.flush()


@contextlib.contextmanager
def _failure_named(path: Path) -> Iterator[None]:
    """Adds to an OSError the path, which those of writes lack."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"could not be written ({error.strerror})", str(path)) from error


def rewind(path: Path, step: int, *, logged: bool) -> None:
    """Removes from metrics.jsonl what a run that resumes after `step` will write again, and a line that was torn.

    The line of `step` itself stays if it is one that the run has `logged`, and goes if it is there only because a
    shorter run ended with it.
    """
    if not path.exists():
        return

    def stays(line: bytes) -> bool:
        try:
            at = bounded_json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            return False
        return at < step or (at == step and logged)

    kept = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n") and stays(line)]
    rewritten = path.with_suffix(".tmp")
    with _failure_named(rewritten):
        rewritten.write_bytes(b"".join(kept))
    os.replace(rewritten, path)


def wandb_tracker(project: str, workdir: Path, config: Mapping[str, Any]) -> Tracker:
    """Sends every logged step to Weights & Biases, from the first on; a resumed run goes on with its curves.

    Raises:
        ValueError: if wandb is not installed.
    """
    try:
        wandb: Any = importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError("wandb is not installed: pip install 'flaxgen[wandb]'") from error
    name = workdir.resolve().name

    @functools.cache
    def run() -> Any:
        return wandb.init(project=project, dir=str(workdir), name=name, id=name, resume="allow", config=dict(config))

    return lambda step, metrics: run().log(dict(metrics), step=step)


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as numbers on the host; waits for the step that makes them."""
    return {name: float(np.asarray(value)) for name, value in metrics.items()}
