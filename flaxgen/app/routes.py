"""The routes of the API: behind the guard, and every picture and job is asked for in the name of its user."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

import flaxgen
from flaxgen.app import asking, uploads
from flaxgen.app.catalogue import Entry
from flaxgen.app.events import TooMany, encode
from flaxgen.app.messages import (
    OVER,
    Asked,
    Card,
    Cards,
    Favourite,
    Gallery,
    History,
    Id,
    Job,
    Jobs,
    Name,
    Picture,
    Read,
    State,
    Status,
    Uploaded,
)  # fmt: skip
from flaxgen.app.replies import Ascii, Failure, missing
from flaxgen.app.studio import Studio
from flaxgen.app.submitting import RETRY, entry_of, job_of, read_request, run, submit, take
from flaxgen.app.worker import with_position

PICTURE = {"Cache-Control": "private, max-age=3600", "Content-Type": "image/png"}
Wanted = Annotated[Id, Path()]


def make_router(studio: Studio) -> APIRouter:
    """All routes of the API of a studio."""
    router = APIRouter(default_response_class=Ascii)
    for add in (_add_models, _add_jobs, _add_events, _add_pictures, _add_gallery, _add_uploads):
        add(router, studio)
    return router


def _add_models(router: APIRouter, studio: Studio) -> None:
    @router.get("/api/models")
    def models() -> Cards:
        """The models of this studio."""
        return Cards(models=[card(entry, entry.name in studio.worker.models) for entry in studio.entries.values()])

    @router.get("/api/models/{name}/verbs")
    def verbs(name: Name) -> dict[str, Any]:
        """What a model can be asked: of each verb the JSON schema of its request, and examples."""
        entry = entry_of(studio.entries, name)
        return {
            verb: {"schema": asking.schema(kind, studio.limits), "examples": asking.examples(entry, kind)}
            for verb, kind in asking.verbs_of(entry).items()
        }

    @router.post("/api/models/{name}/{verb}", status_code=201)
    def ask(name: Name, verb: Name, body: dict[str, Any], request: Request, parent: Id | None = None) -> Job:
        """Asks a model for something: the body is the request itself."""
        return submit(studio, _user(request), Asked(model=name, verb=verb, request=body, parent=parent))

    @router.get("/api/status")
    def status(request: Request) -> Status:
        """How the server is."""
        return Status(
            version=flaxgen.__version__, device=studio.worker.device, queue=studio.line.count(),
            user=_user(request).partition(":")[2],
        )  # fmt: skip


def _add_jobs(router: APIRouter, studio: Studio) -> None:
    @router.post("/api/jobs", status_code=201)
    def post(body: Asked, request: Request) -> Job:
        """Asks for something; a full line is 429."""
        return submit(studio, _user(request), body)

    @router.get("/api/jobs")
    def jobs(
        request: Request, state: State | None = None, before: Id | None = None,
        limit: Annotated[int, Query(ge=1, le=studio.limits.page)] = 50,
    ) -> Jobs:  # fmt: skip
        """Your jobs, the newest first, or those before another one."""
        found = studio.store.jobs(_user(request), state, before, limit)
        return Jobs(jobs=[with_position(job, studio.line) for job in found])

    @router.get("/api/jobs/{job}")
    def one(job: Wanted, request: Request) -> Job:
        """A job."""
        return job_of(studio, job, _user(request))

    @router.post("/api/jobs/{job}/cancel")
    def cancel(job: Wanted, request: Request) -> Job:
        """Ends a job: at once where it waits, after its step where it runs; one that is over stays as it is."""
        user = _user(request)
        if job_of(studio, job, user).state not in OVER:
            studio.worker.cancel(user, job)
        return job_of(studio, job, user)


def _add_events(router: APIRouter, studio: Studio) -> None:
    @router.get("/api/events", response_class=StreamingResponse)
    async def events(request: Request) -> StreamingResponse:
        """Server-sent events: first every job of yours that is not over, then what happens to them."""
        user = _user(request)
        unfinished = [with_position(job, studio.line) for _, job in studio.store.unfinished(user)]
        try:
            stream = studio.events.listen(user, [encode("job", job.model_dump()) for job in unfinished])
        except TooMany:
            raise Failure(429, "too many listen already", kind="too_many", headers=RETRY) from None
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _add_pictures(router: APIRouter, studio: Studio) -> None:
    @router.get("/api/pictures/{picture}", response_class=Response)
    def content(picture: Wanted, request: Request) -> Response:
        """The PNG file, which says what it was drawn by."""
        return _file(studio, picture, _user(request), False)

    @router.get("/api/pictures/{picture}/thumbnail", response_class=Response)
    def thumbnail(picture: Wanted, request: Request) -> Response:
        """A PNG file of at most 256 pixels a side."""
        return _file(studio, picture, _user(request), True)

    @router.get("/api/pictures/{picture}/info")
    def info(picture: Wanted, request: Request) -> Picture:
        """What is known of a picture."""
        return _picture(studio, picture, _user(request))

    @router.get("/api/pictures/{picture}/history")
    def history(picture: Wanted, request: Request) -> History:
        """Where it came from, and what came of it."""
        user = _user(request)
        _picture(studio, picture, user)
        return History(
            ancestors=studio.store.ancestors(picture, user),
            children=studio.store.children(picture, user, studio.limits.page),
        )

    @router.post("/api/pictures/{picture}/favourite")
    def favourite(picture: Wanted, body: Favourite, request: Request) -> Picture:
        """Makes it a favourite, or not."""
        user = _user(request)
        _picture(studio, picture, user)
        studio.store.mark(picture, user, body.favourite)
        return _picture(studio, picture, user)

    @router.delete("/api/pictures/{picture}", status_code=204)
    def delete(picture: Wanted, request: Request) -> Response:
        """Removes it for good."""
        user = _user(request)
        _picture(studio, picture, user)
        sha = studio.store.delete(picture, user)
        if sha is not None:
            studio.shelf.remove(sha)
        return Response(status_code=204)


def _add_gallery(router: APIRouter, studio: Studio) -> None:
    @router.get("/api/gallery")
    def gallery(
        request: Request,
        search: Annotated[str, Query(max_length=200)] = "",
        favourite: Annotated[int, Query(ge=0, le=1)] = 0,
        verb: Annotated[str | None, Query(max_length=64)] = None,
        before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
        limit: Annotated[int, Query(ge=1, le=studio.limits.page)] = 60,
    ) -> Gallery:
        """Your pictures, the newest first: those whose captions have all words that are searched for."""
        found, after = studio.store.gallery(_user(request), search, bool(favourite), verb or None, before, limit)
        return Gallery(pictures=found, next=after)


def _add_uploads(router: APIRouter, studio: Studio) -> None:
    body = {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in uploads.TYPES}}
    documented = {"requestBody": {"required": True, **body}}

    @router.post("/api/pictures", status_code=201, openapi_extra=documented)
    async def upload(request: Request) -> Uploaded:
        """Takes a picture or a mask (white is drawn anew); of the file only pixels are kept, as PNG."""
        kind, content = _kind(request), await request.body()
        return await run(take, studio, _user(request), content, kind)

    @router.post("/api/read", openapi_extra=documented)
    async def read(request: Request) -> Read:
        """What a picture says that it was drawn by; nothing of it is kept."""
        _kind(request)
        return await run(read_request, studio, _user(request), await request.body())


def card(entry: Entry, loaded: bool) -> Card:
    """What is told of a model."""
    return Card(
        name=entry.name, family=entry.family, description=entry.description, examples=list(entry.examples),
        size=None if entry.size is None else list(entry.size), verbs=list(asking.verbs_of(entry)), loaded=loaded,
    )  # fmt: skip


def _user(request: Request) -> str:
    return request.state.user


def _picture(studio: Studio, picture: str, user: str) -> Picture:
    found = studio.store.picture(picture, user)
    if found is None:
        raise missing("picture")
    return found


def _file(studio: Studio, picture: str, user: str, small: bool) -> Response:
    sha = studio.store.file(picture, user)
    if sha is None:
        raise missing("picture")
    try:
        content = studio.shelf.read_small(sha) if small else studio.shelf.read(sha)
    except OSError:
        raise missing("picture") from None
    return Response(content, headers={**PICTURE, "Content-Disposition": f'inline; filename="{picture}.png"'})


def _kind(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in uploads.TYPES:
        raise Failure(415, f"the content type is {kind[:64] or 'missing'}: expected {', '.join(uploads.TYPES)}", "body")
    return kind
