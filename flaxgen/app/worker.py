"""The one thread that owns the devices: it takes jobs from the line, those together that one program draws, and keeps
what it drew."""

import base64
import dataclasses
import functools
import io
import re
import sys
import tempfile
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from flaxgen.app import asking
from flaxgen.app.catalogue import Entry, bytes_of
from flaxgen.app.events import Events
from flaxgen.app.joining import companions
from flaxgen.app.limits import Limits
from flaxgen.app.line import Line
from flaxgen.app.messages import OVER, Job
from flaxgen.app.shelf import Shelf, shrink
from flaxgen.app.store import Kept, Store
from flaxgen.data import to_pixels
from flaxgen.data.decode import decode_image, decode_mask
from flaxgen.family import sheets
from flaxgen.family.drawing import watched
from flaxgen.family.pictures import Pictures, encode_png
from flaxgen.family.request import InputPicture, Request
from flaxgen.family.together import together

STAGE = 100
OFTEN = 0.25
"""Seconds between two previews of a job, at least."""
SHOWN = 16
"""Pictures in a preview, at most."""
PATH = re.compile(r"(?<![\w.<])[~.]{0,2}/[^\s:,;'\")]+")
"""What looks like the name of a file in a message."""


class Cancelled(Exception):
    """The job that is drawn is no longer wanted."""


class Models:
    """Models that are loaded: what was not used for longest goes when their weights take more than `most` bytes."""

    def __init__(self, entries: Mapping[str, Entry], most: int):
        self._entries, self._most = entries, most
        self._loaded: OrderedDict[str, Any] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def get(self, name: str) -> Any:
        """The model of that name.

        Raises:
            ValueError, OSError: if it cannot be read.
        """
        if name not in self._loaded:
            self._loaded[name] = self._entries[name].load()
        self._loaded.move_to_end(name)
        while len(self._loaded) > 1 and sum(map(bytes_of, self._loaded.values())) > self._most:
            self._loaded.popitem(last=False)
        return self._loaded[name]


class Worker(threading.Thread):
    """The thread; `begin` starts it with what was unfinished, `end` stops it."""

    def __init__(
        self, entries: Mapping[str, Entry], store: Store, shelf: Shelf, line: Line, events: Events, limits: Limits
    ):
        super().__init__(name="device", daemon=True)
        self.models = Models(entries, limits.model_memory)
        self._entries, self._store, self._shelf, self._limits = entries, store, shelf, limits
        self._line, self._events = line, events
        self._cancelled: set[str] = set()
        self._stopping = False
        self.device = "starting"

    def begin(self) -> None:
        """Puts what was unfinished when the server last stopped into the line again, and starts."""
        self._store.requeue()
        for user, job in self._store.unfinished():
            self._line.put(user, job.id)
        self.start()

    def end(self) -> None:
        """Stops after the step that is being drawn; that job is queued again by the next start."""
        self._line.close()
        self._stopping = True
        if self.is_alive():
            self.join(timeout=5)

    def cancel(self, user: str, job: str) -> None:
        """A job is not wanted any more: a queued one ends now, a running one after its step."""
        if self._line.remove(job):
            self._store.end(job, "cancelled")
            self.tell(user, job)
        elif (found := self._store.job(job)) is not None and found.state not in OVER:
            self._cancelled.add(job)

    def run(self) -> None:
        """Draws job after job, and with each those that are like it."""
        self.device = f"{jax.device_count()} {jax.devices()[0].device_kind}"
        while (job := self._line.take()) is not None:
            try:
                joined = companions(self._entries, self._store, self._line, job, self._limits.together)
                failures = together([functools.partial(self._answer, id) for id in (job, *joined)])
            except Exception as error:  # the disk is full, or the database is gone: the next may have more luck
                failures = [error]
            for failure in filter(None, failures):
                traceback.print_exception(failure, file=sys.stderr)

    def tell(self, user: str, job: str) -> None:
        """Lets the user hear where a job is."""
        found = self._store.job(job)
        if found is not None:
            self._events.tell(user, "job", with_position(found, self._line).model_dump())

    def _answer(self, id: str) -> None:
        job = self._store.job(id)
        if job is None or job.state != "queued":
            return
        user = self._store.owner(id)
        self._store.start(id)
        self.tell(user, id)
        try:
            self._store.finish(id, self._draw(user, job))
        except Cancelled:
            if self._stopping:
                return self._store.put_back(id)
            self._store.end(id, "cancelled")
        except Exception as error:
            self._store.end(id, "failed", what_failed(error))
        finally:
            self._cancelled.discard(id)
        self.tell(user, id)

    def _draw(self, user: str, job: Job) -> list[Kept]:
        entry = self._entries.get(job.model)
        if entry is None:
            raise ValueError(f"the model {job.model} is gone")
        request = asking.read(entry, job.verb, job.request, reader(self._store, self._shelf, user), self._limits)
        model = self.models.get(job.model)
        progress = Progress(self, user, job.id, model.handler(type(request)).stages(request))
        with watched(progress.walked):
            drawn = model.perform(request, progress)
        progress.check()
        return [keep(self._shelf, png) for png in encode(drawn, request, job.request)]

    def leave(self, user: str, job: str) -> None:
        """A job that is no longer wanted ends now, also where others that are drawn with it go on."""
        if not self._stopping:
            self._store.end(job, "cancelled")
            self.tell(user, job)

    def is_cancelled(self, job: str) -> bool:
        """Whether a job shall end at its next step."""
        return self._stopping or job in self._cancelled

    def move(self, user: str, job: str, step: int, steps: int) -> None:
        """A job has come so far."""
        self._store.move(job, step, steps)
        self.tell(user, job)

    def show(self, user: str, job: str, step: int, steps: int, x0: Any) -> None:
        """A job has come so far, and who listens sees what it draws."""
        self.move(user, job, step, steps)
        if self._events.hears(user) and (png := preview(np.asarray(x0))) is not None:
            text = base64.b64encode(png).decode()
            self._events.tell(user, "preview", {"job": job, "step": step, "steps": steps, "png": text})


class Progress:
    """Called with the name of each stage of a job; `walked` is told of the steps in it. A stage counts as STAGE steps,
    however many it has.

    Raises:
        Cancelled: if the job is not wanted any more.
    """

    def __init__(self, worker: Worker, user: str, job: str, stages: int):
        self._worker, self._user, self._job, self._stages = worker, user, job, stages
        self._stage, self._shown = -1, 0.0

    def __call__(self, stage: str) -> None:
        self.check()
        self._stage = min(self._stage + 1, self._stages - 1)
        self._worker.move(self._user, self._job, self._stage * STAGE, self._stages * STAGE)

    def walked(self, step: int, steps: int, x0: Any) -> None:
        """So many steps of a stage are done, and that is what the last took the pictures to be."""
        self.check()
        now = time.monotonic()
        if now - self._shown < OFTEN:
            return
        self._shown = now
        at = max(self._stage, 0) * STAGE + STAGE * step // steps
        self._worker.show(self._user, self._job, at, self._stages * STAGE, x0)

    def check(self) -> None:
        """Raises Cancelled if the job is not wanted any more."""
        if self._worker.is_cancelled(self._job):
            self._worker.leave(self._user, self._job)
            raise Cancelled


def preview(x0: np.ndarray) -> bytes | None:
    """A small PNG sheet of what is drawn, [N 1 H W C] in [-1, 1]; None of what is no pictures, such as latents."""
    if x0.ndim != 5 or x0.shape[-1] not in (1, 3):
        return None
    pixels = to_pixels(np.clip(x0[:SHOWN, 0], -1, 1))
    return shrink(encode_png(sheets.grid(np.ascontiguousarray(pixels))))


def reader(store: Store, shelf: Shelf, user: str) -> Callable[[str, int], InputPicture]:
    """`picture(id, channels)` of a user; raises LookupError for one that there is not."""

    def picture(id: str, channels: int) -> InputPicture:
        sha = store.file(id, user)
        if sha is None:
            raise LookupError(id)
        try:
            content = shelf.read(sha)
        except OSError as error:
            raise LookupError(id) from error
        pixels = decode_mask(content) if channels == 1 else decode_image(content, channels)
        return InputPicture(pixels, f"{id}.png")

    return picture


def encode(drawn: Pictures, request: Request, values: Mapping[str, Any]) -> list[bytes]:
    """Each picture as a PNG file that knows the request, as `Pictures.save` writes it; pictures that it came from are
    called by their ids, where that would have their path."""
    fields = dict(drawn.about["request"])
    for name, spec in asking.offered(type(request)).items():
        given = values.get(name)
        if spec.is_picture and given:
            stored = fields[name]
            pairs = zip(given, stored, strict=True) if isinstance(given, list) else [(given, stored)]
            named = [{**one, "path": f"{id}.png"} for id, one in pairs]
            fields[name] = named if isinstance(stored, list) else named[0]
    drawn = dataclasses.replace(drawn, about={**drawn.about, "request": fields})
    with tempfile.TemporaryDirectory() as folder:
        paths = [drawn.save(Path(folder, f"{i}.png"), force=True, only=i) for i in range(len(drawn.images))]
        return [path.read_bytes() for path in paths]


def keep(shelf: Shelf, png: bytes) -> Kept:
    """Puts a PNG file on the shelf."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return Kept(shelf.put(png), len(png), picture.width, picture.height)


def with_position(job: Job, line: Line) -> Job:
    """The job, with how many are before it if it waits."""
    order = line.order() if job.state == "queued" else []
    return job.model_copy(update={"position": order.index(job.id) if job.id in order else None})


def what_failed(error: Exception) -> str:
    """What is told of an error; one that nobody has foreseen stands in the server's own output as a whole."""
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return in_one_line(error)
    traceback.print_exception(error, file=sys.stderr)
    return "out of memory: ask for fewer pictures" if "RESOURCE_EXHAUSTED" in str(error) else "the server failed"


def in_one_line(error: BaseException) -> str:
    """What went wrong, without names of files."""
    if isinstance(error, OSError):
        return error.strerror or "a file cannot be read"
    return PATH.sub("a file", " ".join(str(error).split()))[:500]
