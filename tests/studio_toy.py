"""A studio of fake models on a free port of loopback: real HTTP, real files, pictures of one colour."""

import contextlib
import dataclasses
import io
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import jax
import numpy as np
import uvicorn
from PIL import Image

from flaxgen.app.application import make_app
from flaxgen.app.catalogue import Entry
from flaxgen.app.limits import Limits
from flaxgen.app.serve import configure
from flaxgen.app.studio import open_studio
from flaxgen.family import drawing
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import option
from flaxgen.family.requests import Draw, Inpaint, Vary
from flaxgen.family.trained import Answering, Handler

WRITES = {"X-Flaxgen": "1"}


@dataclass(frozen=True, kw_only=True)
class Paint(Draw):
    """Draw what captions say."""

    candidates: int = option(1, "how many of each", least=1)
    steps: int | None = option(None, "sampling steps", least=1)
    data: str | None = option(None, "a folder of this machine", flag="data DIR")


class Brush:
    """What a fake model does: it waits for `go`, draws by one program that walks on while a shade of its pictures is
    `held`, keeps the requests, and fails as `error` says. `batches` are how many pictures of how many jobs each call of
    the program had."""

    def __init__(self):
        self.go, self.begun, self.walking = (threading.Event() for _ in range(3))
        self.go.set()
        self.held: int | None = None
        self.batches: list[int] = []
        self.poison: int | None = None
        self._compiled = self.program
        self.done: list[Any] = []
        self.error: Exception | None = None

    def paint(self, model: Any, request: Any, progress: Any) -> Pictures:
        """Pictures of one colour each, of the seed."""
        progress("first")
        self.begun.set()
        while not self.go.wait(0.02):
            progress.check()
        progress("second")
        if self.error is not None:
            raise self.error
        self.done.append(request)
        shades = [(request.seed + i) % 256 for i in range(request.num * len(getattr(request, "captions", ".")))]
        rows = {"shade": np.asarray(shades, np.uint8)}
        return Pictures(drawing.draw_many(self._compiled, {}, jax.random.key(0), rows, num=len(shades), batch=8))

    def program(self, params: Any, rows: Any) -> Any:
        """Pictures of one colour each; none of the shade `poison`."""
        pictures = np.broadcast_to(rows["shade"][:, None, None, None], (len(rows["shade"]), 12, 16, 3))
        self.batches.append(len(set(rows["shade"].tolist())))
        while self.held in rows["shade"]:
            self.walking.set()
            time.sleep(0.02)
            drawing.show(1, 2, pictures[:, None] / 127.5 - 1)
        if self.poison in rows["shade"]:
            raise RuntimeError("poison")
        return pictures


@dataclass(frozen=True, eq=False, repr=False)
class Fake(Answering):
    """A model of no weights."""

    brush: Brush
    name: str = "fake"
    kind: str = "fake"
    step: int = 7
    fingerprint: str = "0123456789ab"
    requests: dict = field(default_factory=dict)
    image_size: ClassVar[int] = 16


def entry_of(brush: Brush, name: str = "fake", load: Any = None) -> Entry:
    """The fake model under a name."""
    handler = Handler(brush.paint, stages=lambda request: 2)
    model = Fake(brush, name, requests=dict.fromkeys((Paint, Vary, Inpaint), handler))
    return Entry(name, "fake", "fake model", ("a ring", "a dot"), None, model.requests, model, load or (lambda: model))


@dataclasses.dataclass
class Served:
    """A studio that runs: its parts, its address, and clients of it."""

    studio: Any
    brush: Brush
    url: str

    def client(self, **headers: str) -> Any:
        """A program, which is let to write."""
        return httpx.Client(base_url=self.url, headers={**WRITES, **headers}, timeout=20)

    def finish(self, client: Any, job: str) -> dict:
        """A job once it is over."""
        for _ in range(400):
            found = client.get(f"/api/jobs/{job}").json()
            if found["state"] not in ("queued", "running"):
                return found
            time.sleep(0.02)
        raise AssertionError(f"the job is still {found['state']}")


@contextlib.contextmanager
def served(folder: Any, entries: dict | None = None, limits: Limits = Limits(), **door: Any):  # noqa: B008
    """A studio in that folder until the end of the block."""
    brush = Brush()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    try:
        studio = open_studio(entries or {"fake": entry_of(brush)}, folder, limits, port=port, **door)
    except ValueError:
        listening.close()
        raise
    server = uvicorn.Server(configure(make_app(studio)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Served(studio, brush, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def png(size=(8, 8), mode="RGB", **more):
    file = io.BytesIO()
    Image.new(mode, size, "grey").save(file, "PNG", **more)
    return file.getvalue()


def raw(served, request):
    """The bytes of the answer to bytes, which nothing tidies on the way; the server has to end the connection. It may
    do so before it has read all of a request that is too long: the system then resets it, and an answer may be lost."""
    parts, address = [], ("127.0.0.1", int(served.url.rpartition(":")[2]))
    with (
        socket.create_connection(address, timeout=10) as connection,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
    ):
        connection.sendall(request)
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
