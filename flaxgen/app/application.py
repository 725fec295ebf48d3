"""The application: the routes behind the guard, and errors in one shape."""

import asyncio
import contextlib
import sys
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

import flaxgen
from flaxgen.app import a1111, described, front, openai, routes
from flaxgen.app.catalogue import Entry
from flaxgen.app.guard import Door, Guard, Refusal
from flaxgen.app.limits import Limits
from flaxgen.app.replies import Failure, error_reply
from flaxgen.app.studio import Studio, close_studio


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

    routers = [module.make_router(studio) for module in (routes, openai, a1111)]
    return guarded([*routers, front.make_router(studio.door)], studio.entries, studio.limits, studio.door, lifespan)


def guarded(
    routers: Sequence[APIRouter], entries: Mapping[str, Entry], limits: Limits, door: Door, lifespan: Any = None
) -> Guard:
    """Routes behind the guard, described by OpenAPI, with errors in one shape."""
    app = FastAPI(
        title="flaxgen studio", version=flaxgen.__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=lifespan,
    )  # fmt: skip
    for router in routers:
        app.include_router(router)
    described.describe(app, entries, limits)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return Guard(app, door, limits)


async def _on_failure(request: Request, error: Any) -> JSONResponse:
    return error_reply(error.status, error.message, error.kind, error.param, error.headers)


async def _on_refusal(request: Request, error: Any) -> JSONResponse:
    return error_reply(error.status, error.message, error.kind)


async def _on_http(request: Request, error: Any) -> JSONResponse:
    if isinstance(error.__cause__, Refusal):  # of a body that FastAPI was reading
        return await _on_refusal(request, error.__cause__)
    kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return error_reply(error.status_code, str(error.detail), kind, headers=error.headers)


async def _on_invalid(request: Request, error: Any) -> JSONResponse:
    first: Mapping[str, Any] = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
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
