"""The routes of the API: behind the guard, and every picture and job is asked for in the name of its user."""

import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

import flaxgen
from flaxgen import bounded_json
from flaxgen.app import asking, uploads
from flaxgen.app.catalogue import Entry
from flaxgen.app.events import TooMany, encode
from flaxgen.app.limits import Limits
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
from flaxgen.app.worker import keep, reader, with_position
from flaxgen.family import request as requests

RETRY = {"Retry-After": "5"}
"""Seconds after which a full line may have room."""
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
        entry = _entry(studio.entries, name)
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
        return _job(studio, job, _user(request))

    @router.post("/api/jobs/{job}/cancel")
    def cancel(job: Wanted, request: Request) -> Job:
        """Ends a job: at once where it waits, after its step where it runs; one that is over stays as it is."""
        user = _user(request)
        if _job(studio, job, user).state not in OVER:
            studio.worker.cancel(user, job)
        return _job(studio, job, user)


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


async def run(function: Any, *arguments: Any) -> Any:
    """A function in a thread that may wait."""
    return await anyio.to_thread.run_sync(function, *arguments)


def card(entry: Entry, loaded: bool) -> Card:
    """What is told of a model."""
    return Card(
        name=entry.name, family=entry.family, description=entry.description, examples=list(entry.examples),
        size=None if entry.size is None else list(entry.size), verbs=list(asking.verbs_of(entry)), loaded=loaded,
    )  # fmt: skip


_submitting = threading.Lock()
"""Two requests of one user may not both find the last place in the line."""


def submit(studio: Studio, user: str, asked: Asked) -> Job:
    """Checks all of a job and puts it into the line.

    Raises:
        Failure: naming the field that is wrong, or if the line or the user's store is full.
    """
    store, limits = studio.store, studio.limits
    request = check(studio.entries, asked, reader(store, studio.shelf, user), limits)
    parent = asked.parent or _first_picture(asking.offered(type(request)), asked.request)
    if parent is not None and store.picture(parent, user) is None:
        raise Failure(400, "parent: there is no such picture", "parent")
    _check_room(studio, user)
    fields = asking.as_json(request, asked.request)
    with _submitting:
        if studio.line.count(user) >= limits.waiting or studio.line.count() >= limits.waiting_of_all:
            raise Failure(429, f"{limits.waiting} jobs of yours may wait: try again later", kind="queue_full",
                          headers=RETRY)  # fmt: skip
        job = store.add_job(user, asked.model, asked.verb, fields, parent, limits.kept_jobs)
        studio.line.put(user, job)
    studio.worker.tell(user, job)
    return _job(studio, job, user)


def check(
    entries: Mapping[str, Entry], asked: Asked, picture: Callable[[str, int], requests.InputPicture], limits: Limits
) -> requests.Request:
    """The request that is asked for; `picture` as in `asking.read`.

    Raises:
        Failure: naming the field that is wrong.
    """
    try:
        return asking.read(_entry(entries, asked.model, "model"), asked.verb, asked.request, picture, limits)
    except asking.Wrong as error:
        raise Failure(400, str(error), error.field) from error


def _first_picture(fields: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """The picture that a request begins with."""
    given = [values.get(name) for name, spec in fields.items() if spec.channels == 3]
    ids = [one[0] if isinstance(one, list) else one for one in given if one]
    return ids[0] if ids else None


def _check_room(studio: Studio, user: str) -> None:
    """Raises Failure where a user, or all together, have kept as much as may be."""
    limits = studio.limits
    if studio.store.stored(user) >= limits.stored:
        raise Failure(403, f"your pictures take {limits.stored:,} bytes, as much as may be: delete some", kind="quota")
    if studio.store.stored() >= limits.stored_of_all:
        raise Failure(403, "the studio is full: pictures have to be deleted", kind="quota")


def take(studio: Studio, user: str, content: bytes, kind: str) -> Uploaded:
    """Keeps a picture that was sent."""
    _check_room(studio, user)
    try:
        png, width, height = uploads.reencode(content, kind, studio.limits.pixels)
    except uploads.Refused as error:
        raise Failure(400, str(error), "body") from error
    kept = keep(studio.shelf, png)
    return Uploaded(id=studio.store.add_upload(user, kept), width=width, height=height, sha=kept.sha)


def read_request(studio: Studio, user: str, content: bytes) -> Read:
    """What a picture that was sent says of itself."""
    try:
        text = uploads.read_text(content, studio.limits.pixels)
        about = bounded_json.loads(text) if text else None
    except uploads.Refused as error:
        raise Failure(400, str(error), "body") from error
    except ValueError:
        about = None
    request = about.get("request") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(request, dict):
        raise Failure(404, "the picture does not say what it was drawn by", kind="not_found")
    model, verb = str(about.get("model", "")).rpartition("/")[2][:64], str(request.get("verb", ""))[:64]
    entry = studio.entries.get(model)
    kind = None if entry is None else asking.verbs_of(entry).get(verb)
    names = request if kind is None else asking.offered(kind)
    fields = {name: _plain(studio, user, request[name]) for name in names if name in request and name != "verb"}
    return Read(model=model, verb=verb, request=fields)


def _plain(studio: Studio, user: str, value: Any) -> Any:
    """A field of a request that was read; of pictures the ids of those that the user has here."""
    if isinstance(value, list):
        return [_plain(studio, user, one) for one in value]
    if isinstance(value, dict):
        id = str(value.get("path", "")).rpartition("/")[2].removesuffix(".png")
        return id if studio.store.file(id, user) else None
    return value


def _user(request: Request) -> str:
    return request.state.user


def _entry(entries: Mapping[str, Entry], name: str, param: str | None = None) -> Entry:
    if name not in entries:
        status = 404 if param is None else 400
        raise Failure(status, f"there is no such model: expected {', '.join(entries)}", param)
    return entries[name]


def _job(studio: Studio, job: str, user: str) -> Job:
    found = studio.store.job(job, user)
    if found is None:
        raise missing("job")
    return with_position(found, studio.line)


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
