"""What is done for a user behind the routes: a job is checked and put into the line, a picture is kept."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import anyio.to_thread

from flaxgen import bounded_json
from flaxgen.app import asking, uploads
from flaxgen.app.catalogue import Entry
from flaxgen.app.limits import Limits
from flaxgen.app.messages import Asked, Job, Read, Uploaded
from flaxgen.app.replies import Failure, missing
from flaxgen.app.studio import Studio
from flaxgen.app.worker import keep, reader, with_position
from flaxgen.family import request as requests

STRENGTH = "strength"
"""The field of a request that models fill in each in their own way."""
RETRY = {"Retry-After": "5"}
"""Seconds after which a full line may have room."""


async def run(function: Any, *arguments: Any) -> Any:
    """A function in a thread that may wait."""
    return await anyio.to_thread.run_sync(function, *arguments)


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
    return job_of(studio, job, user)


def check(
    entries: Mapping[str, Entry], asked: Asked, picture: Callable[[str, int], requests.InputPicture], limits: Limits
) -> requests.Request:
    """The request that is asked for; `picture` as in `asking.read`.

    Raises:
        Failure: naming the field that is wrong.
    """
    try:
        return asking.read(entry_of(entries, asked.model, "model"), asked.verb, asked.request, picture, limits)
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


def about(studio: Studio, content: bytes) -> dict[str, Any]:
    """What a picture says of itself: its "request", and "settings" that were used where that says nothing.

    Raises:
        Failure: if it is no picture, or says nothing.
    """
    try:
        text = uploads.read_text(content, studio.limits.pixels)
        said = bounded_json.loads(text) if text else None
    except uploads.Refused as error:
        raise Failure(400, str(error), "body") from error
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("request"), dict):
        raise Failure(404, "the picture does not say what it was drawn by", kind="not_found")
    return said


def with_strength(said: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the strength that was used, where it names none."""
    used = said.get("settings")
    found = used.get(STRENGTH) if isinstance(used, dict) else None
    return dict(request) if found is None or request.get(STRENGTH) is not None else {**request, STRENGTH: found}


def read_request(studio: Studio, user: str, content: bytes) -> Read:
    """What a picture that was sent says of itself."""
    said = about(studio, content)
    request = said["request"]
    model, verb = str(said.get("model", "")).rpartition("/")[2][:64], str(request.get("verb", ""))[:64]
    entry = studio.entries.get(model)
    kind = None if entry is None else asking.verbs_of(entry).get(verb)
    names = request if kind is None else asking.offered(kind)
    fields = {name: _plain(studio, user, request[name]) for name in names if name in request and name != "verb"}
    return Read(model=model, verb=verb, request=with_strength(said, fields))


def _plain(studio: Studio, user: str, value: Any) -> Any:
    """A field of a request that was read; of pictures the ids of those that the user has here."""
    if isinstance(value, list):
        return [_plain(studio, user, one) for one in value]
    if isinstance(value, dict):
        id = str(value.get("path", "")).rpartition("/")[2].removesuffix(".png")
        return id if studio.store.file(id, user) else None
    return value


def entry_of(entries: Mapping[str, Entry], name: str, param: str | None = None) -> Entry:
    """The model called `name`; Failure about `param` where there is none."""
    if name not in entries:
        status = 404 if param is None else 400
        raise Failure(status, f"there is no such model: expected {', '.join(entries)}", param)
    return entries[name]


def job_of(studio: Studio, job: str, user: str) -> Job:
    """A job of the user; Failure where there is none."""
    found = studio.store.job(job, user)
    if found is None:
        raise missing("job")
    return with_position(found, studio.line)
