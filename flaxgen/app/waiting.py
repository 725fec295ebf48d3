"""Jobs of programs that wait: asked, followed until they are over, and given up where nobody waits any more."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from flaxgen.app.messages import OVER, Asked, Job
from flaxgen.app.replies import Failure, missing
from flaxgen.app.studio import Studio
from flaxgen.app.submitting import run, submit, take
from flaxgen.app.uploads import Refused, kind_of

LOOK = 0.5
"""Seconds after which a job is looked at again although nothing was heard of it."""
FINAL = {"x-should-retry": "false"}
"""What keeps OpenAI's clients from asking again for what has failed."""
Preview = Mapping[str, Any]


async def begin(
    studio: Studio, user: str, model: str, verb: str, fields: Mapping[str, Any], files: Mapping[str, bytes]
) -> Job:
    """Puts a job into the line with `files` as its pictures, by field; nothing is kept of them where that fails.

    Raises:
        Failure: as `submitting.submit` and `submitting.take`.
    """
    return await run(_begin, studio, user, Asked(model=model, verb=verb, request=dict(fields)), files)


def _begin(studio: Studio, user: str, asked: Asked, files: Mapping[str, bytes]) -> Job:
    ids: dict[str, str] = {}
    try:
        for field, content in files.items():
            ids[field] = take_file(studio, user, content, field)
        return submit(studio, user, asked.model_copy(update={"request": {**asked.request, **ids}}))
    except BaseException:
        for id in ids.values():
            sha = studio.store.delete(id, user)
            if sha is not None:
                studio.shelf.remove(sha)
        raise


def take_file(studio: Studio, user: str, content: bytes, field: str) -> str:
    """Keeps a picture that was sent as that field; returns its id.

    Raises:
        Failure: naming the field.
    """
    try:
        return take(studio, user, content, kind_of(content)).id
    except Refused as error:
        raise Failure(400, f"{field}: {error}", field) from error
    except Failure as failure:
        raise Failure(failure.status, f"{field}: {failure}", field, failure.kind) from failure


async def watch(studio: Studio, user: str, job: str, looks: bool) -> AsyncGenerator[Preview | None]:
    """The previews of a job until it is over, and None between them at least every LOOK seconds. A job that is not
    watched to its end is cancelled."""
    over = False
    try:
        with studio.events.follow(user, looks) as told:
            while not over:
                found = await run(studio.store.job, job, user)
                over = found is None or found.state in OVER
                yield None if over else await _next_of(told, job)
    finally:
        if not over:
            studio.worker.cancel(user, job)


async def _next_of(told: asyncio.Queue, job: str) -> Preview | None:
    """The next preview of the job; None where anything else is told of it, or nothing for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK):
            while True:
                name, data = await told.get()
                if name == "preview" and data.get("job") == job:
                    return data
                if name == "job" and data.get("id") == job:
                    return None
    return None


async def finish(
    studio: Studio, user: str, job: str, request: Request, see: Callable[[Preview], None] | None = None
) -> Job:
    """A job once it is done; `see` is called with its previews.

    Raises:
        Failure: if it fails, is cancelled, or the client is gone, for whom it is then given up.
    """
    async with contextlib.aclosing(watch(studio, user, job, see is not None)) as previews:
        async for preview in previews:
            if await request.is_disconnected():
                raise Failure(400, "the client is gone", kind="cancelled")
            if preview is not None and see is not None:
                see(preview)
    return done(studio, user, job)


def done(studio: Studio, user: str, job: str) -> Job:
    """A job that is over.

    Raises:
        Failure: if it is not done.
    """
    found = studio.store.job(job, user)
    if found is None or found.state == "cancelled":
        raise Failure(400, "the job was cancelled", kind="cancelled")
    if found.state != "done":
        raise Failure(500, found.error or "the job failed", kind="server_error", headers=FINAL)
    return found


def contents(studio: Studio, user: str, pictures: Sequence[str]) -> list[bytes]:
    """The PNG files of pictures of a user.

    Raises:
        Failure: if one is gone.
    """
    try:
        return [studio.shelf.read(studio.store.file(picture, user) or "") for picture in pictures]
    except (OSError, ValueError):  # it was deleted meanwhile
        raise missing("picture") from None
