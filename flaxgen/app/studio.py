"""A studio put together: what its routes work with, and the application around them."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flaxgen
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from flaxgen.app import described, front, routes
from flaxgen.app.catalogue import Entry
from flaxgen.app.events import Events
from flaxgen.app.guard import Door, Guard, Refusal
from flaxgen.app.limits import Limits
from flaxgen.app.line import Line
from flaxgen.app.replies import Failure, error_reply
from flaxgen.app.shelf import Shelf, private
from flaxgen.app.store import Store
from flaxgen.app.worker import Worker


class Studio(NamedTuple):
    """All that a running studio is made of."""

    entries: Mapping[str, Entry]
    limits: Limits
    door: Door
    store: Store
    shelf: Shelf
    line: Line
    events: Events
    worker: Worker
    lock: int


def open_studio(
    entries: Mapping[str, Entry], folder: Path, limits: Limits, *, token: str = "", port: int = 0,
    names: frozenset[str] = frozenset(), addresses: bool = False,
) -> Studio:  # fmt: skip
    """A studio that keeps everything in `folder`, let in as `guard.Door` says; loopback's names always are.

    Raises:
        ValueError, OSError: if the folder is another studio's, or cannot be used.
    """
    lock = _claim(private(folder))
    known = names | {"localhost", "127.0.0.1", "[::1]", "::1"}
    door = Door(token, _secret(folder), known, addresses, port)
    store, shelf = Store(folder / "studio.sqlite"), Shelf(folder)
    line, events = Line(), Events(limits)
    return Studio(
        entries, limits, door, store, shelf, line, events, Worker(entries, store, shelf, line, events, limits), lock
    )


def _claim(folder: Path) -> int:
    """Holds the folder for this process; the kernel lets go of it when the process ends, however it ends."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ValueError(f"another studio works in {folder}: end it, or name another --folder") from None
    return lock


def _secret(folder: Path) -> bytes:
    """What signs the cookies, the same after a restart."""
    path = folder / "secret"
    with contextlib.suppress(FileExistsError):
        part = folder / "secret.part"
        part.unlink(missing_ok=True)
        if path.exists():
            raise FileExistsError
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        part.rename(path)
    return path.read_bytes()


def close_studio(studio: Studio) -> None:
    """Stops drawing and lets go of the folder."""
    studio.worker.end()
    studio.store.close()
    studio.shelf.close()
    os.close(studio.lock)


def make_app(studio: Studio) -> Guard:
    """The application: routes behind the guard."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.events.open()
        studio.shelf.tidy(studio.store.files())
        studio.worker.begin()
        yield
        studio.events.close()
        await asyncio.to_thread(close_studio, studio)

    app = FastAPI(
        title="flaxgen studio", version=flaxgen.__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=lifespan,
    )  # fmt: skip
    app.include_router(routes.make_router(studio))
    app.include_router(front.make_router(studio.door))
    described.describe(app, studio.entries, studio.limits)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return Guard(app, studio.door, studio.limits)


async def _on_failure(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Failure)
    return error_reply(error.status, error.message, error.kind, error.param, error.headers)


async def _on_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return error_reply(error.status, error.message, error.kind)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    if isinstance(error.__cause__, Refusal):  # of a body that FastAPI was reading
        return await _on_refusal(request, error.__cause__)
    kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return error_reply(error.status_code, str(error.detail), kind, headers=error.headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first: Mapping[str, Any] = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(place)[:64] or None
    return error_reply(400, f"{name or 'the body'}: {first['msg'].lower()}", "invalid_request", name)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    traceback.print_exception(error, file=sys.stderr)
    return error_reply(500, "the server failed", "server_error")


HANDLERS = {
    Failure: _on_failure,
    Refusal: _on_refusal,
    StarletteHTTPException: _on_http,
    HTTPException: _on_http,
    RequestValidationError: _on_invalid,
    Exception: _on_error,
}
