"""OpenAI's images API, as its clients speak it: a job of the caller's, in the same line as the page's.

What else a body has are fields of the model's own request. Masks mark what is redrawn by transparency, as everywhere.
"""

import base64
import contextlib
import io
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from PIL import Image
from starlette.responses import Response, StreamingResponse

from flaxgen.app import asking, messages, openai_bodies, uploads
from flaxgen.app.catalogue import Entry
from flaxgen.app.limits import Limits
from flaxgen.app.links import make_link, read_link
from flaxgen.app.messages import Job
from flaxgen.app.openai_bodies import Body, read_form
from flaxgen.app.replies import Ascii, Failure, missing
from flaxgen.app.sizes import Size, plan_size, resized
from flaxgen.app.studio import Studio
from flaxgen.app.submitting import run
from flaxgen.app.waiting import Preview, begin, contents, done, finish, watch
from flaxgen.family import request as requests

SAID_BY = {"captions": "prompt", "caption": "prompt", "num": "n", "width": "size", "height": "size"}
"""Fields of requests that have another name in this API."""
STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
NOT_COUNTED = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip
"""Models here have no tokens that cost anything."""


class Asked(NamedTuple):
    """A job that was asked for: the size its pictures are brought to, its seed, how it is answered (`name` begins the
    events of a stream), and the address of this server."""

    user: str
    job: str
    size: Size | None
    seed: int
    name: str
    partials: int
    urls: bool
    base: str


class Meant(NamedTuple):
    """What a body means here: a job, and the size that its pictures are brought to."""

    asked: messages.Asked
    size: Size | None


def make_router(studio: Studio) -> APIRouter:
    """The routes below /v1."""
    router = APIRouter(default_response_class=Ascii)
    add_models(router, studio.entries)
    _add_images(router, studio)
    return router


def add_models(router: APIRouter, entries: Mapping[str, Entry]) -> None:
    """The routes that list models."""
    started = int(time.time())

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "flaxgen"}

    @router.get("/v1/models")
    def models() -> dict[str, Any]:
        """The models of this studio, as OpenAI lists its own."""
        return {"object": "list", "data": [card(name) for name in entries]}

    @router.get("/v1/models/{name}")
    def model(name: str) -> dict[str, Any]:
        """A model, as OpenAI shows its own."""
        return card(_entry(entries, name, "").name)


def _add_images(router: APIRouter, studio: Studio) -> None:
    @router.post("/v1/images/generations")
    async def generations(body: openai_bodies.Generation, request: Request) -> Response:
        """Draws what a prompt says, as OpenAI's API does; other fields are those of the model's `draw`."""
        return await _answer(studio, request, body, "draw", body.prompt, {})

    @router.post("/v1/images/edits", openapi_extra=openai_bodies.described(openai_bodies.Edit, "image", "mask"))
    async def edits(request: Request) -> Response:
        """Draws anew where the mask, or the picture itself, is transparent; other fields are those of `inpaint`."""
        body, files = await read_form(request, openai_bodies.Edit, ("image", "mask"))
        if "mask" not in files:
            files = {**files, "mask": await run(_hole, files["image"], studio.limits.pixels)}
        return await _answer(studio, request, body, "inpaint", body.prompt, files)

    @router.post("/v1/images/variations", openapi_extra=openai_bodies.described(openai_bodies.Variation, "image"))
    async def variations(request: Request) -> Response:
        """Draws variations of a picture, as OpenAI's API did; other fields are those of the model's `vary`."""
        body, files = await read_form(request, openai_bodies.Variation, ("image",))
        return await _answer(studio, request, body, "vary", None, files)

    @router.get("/v1/images/files/{name}", include_in_schema=False)
    def file(name: str) -> Response:
        """A picture, for whoever has its link."""
        linked = read_link(studio.door, name)
        user = None if linked is None else studio.store.holder(linked.picture)
        if linked is None or user is None:
            raise missing("picture")
        (png,) = contents(studio, user, [linked.picture])
        headers = {"Cache-Control": "private, max-age=3600", "Content-Type": "image/png"}
        return Response(resized(png, linked.size), headers=headers)


async def _answer(
    studio: Studio, request: Request, body: Body, verb: str, prompt: str | None, files: Mapping[str, bytes]
) -> Response:
    """Asks for a job and answers with its pictures."""
    user, (meant, size) = request.state.user, meaning(studio.entries, studio.limits, body, verb, prompt)
    with in_its_words():
        job = await begin(studio, user, meant.model, verb, meant.request, files)
    name, partials = "image_edit" if files else "image_generation", body.partial_images or 0
    urls, base = body.response_format != "b64_json", f"{request.url.scheme}://{request.headers['host']}"
    asked = Asked(user, job.id, size, meant.request["seed"], name, partials, urls, base)
    if body.stream:
        return StreamingResponse(_stream(studio, asked), media_type="text/event-stream", headers=STREAM)
    found = await finish(studio, user, job.id, request)
    return Ascii(await run(_reply, studio, asked, found))


def meaning(entries: Mapping[str, Entry], limits: Limits, body: Body, verb: str, prompt: str | None) -> Meant:
    """What a body asks for, by the model that it names or the first that can do it.

    Raises:
        Failure: if there is no such model, or no such size.
    """
    entry = _entry(entries, body.model, verb)
    kind = asking.verbs_of(entry)[verb]
    plan = plan_size(entry, kind, openai_bodies.size_of(body.size))
    fields = _fields(limits, kind, body, prompt, plan.fields)
    return Meant(messages.Asked(model=entry.name, verb=verb, request=fields), plan.resize)


@contextlib.contextmanager
def in_its_words() -> Iterator[None]:
    """Inside, a Failure names fields as this API does."""
    try:
        yield
    except Failure as failure:
        failure.param = SAID_BY.get(failure.param or "", failure.param)
        raise


def _entry(entries: Mapping[str, Entry], name: str | None, verb: str) -> Entry:
    """The model of that name, or the first that has the verb.

    Raises:
        Failure: if there is none, or it has not.
    """
    able = [entry for entry in entries.values() if not verb or verb in asking.verbs_of(entry)]
    known = ", ".join(entry.name for entry in able) or "none: no model here does that"
    if name is not None and name not in entries:
        raise Failure(404, f"there is no such model: expected {known}", "model", "not_found")
    found = next((entry for entry in able if name in (None, entry.name)), None)
    if found is None:
        raise Failure(400, f"{name or 'the studio'} has no {verb!r}: expected {known}", "model")
    return found


def _fields(
    limits: Limits, kind: type[requests.Request], body: Body, prompt: str | None, sized: Mapping[str, Any]
) -> dict[str, Any]:
    """The request's fields; without a seed one is drawn, as these clients expect another picture each time."""
    offered = asking.offered(kind)
    said: dict[str, Any] = {"num": body.n or 1, **sized}
    if prompt is not None:
        said |= {"captions": [prompt]} if "captions" in offered else {"caption": prompt}
    own = body.own_fields(asking.schema(kind, limits)["properties"])
    if twice := next((name for name in own if name in said), None):
        raise Failure(400, f"{twice}: say it by {SAID_BY[twice]}", twice)
    return {"seed": secrets.randbits(32), **own, **said}


def _hole(image: bytes, most: int) -> bytes:
    """The picture as its own mask.

    Raises:
        Failure: if it is transparent nowhere.
    """
    try:
        png, _, _ = uploads.reencode(image, uploads.kind_of(image), most)
    except uploads.Refused as error:
        raise Failure(400, f"image: {error}", "image") from error
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        if not uploads.has_hole(picture):
            raise Failure(400, "mask: expected one, or an image that is transparent where it is drawn anew", "mask")
    return png


def _reply(studio: Studio, asked: Asked, job: Job) -> dict[str, Any]:
    """The body of an answer, which says the seed too."""
    if asked.urls:
        links = [f"{asked.base}{make_link(studio.door, picture, asked.size)}" for picture in job.pictures]
        return {"created": int(time.time()), "data": [{"url": link, "seed": asked.seed} for link in links]}
    return reply(contents(studio, asked.user, job.pictures), asked.size, asked.seed)


def reply(files: Sequence[bytes], size: Size | None, seed: int) -> dict[str, Any]:
    """The body of an answer that has pictures in it, brought to a size."""
    data = [{"b64_json": encoded, "seed": seed} for encoded in _encoded(files, size)]
    return {"created": int(time.time()), "data": data}


def _encoded(files: Sequence[bytes], size: Size | None) -> list[str]:
    return [base64.b64encode(resized(png, size)).decode() for png in files]


async def _stream(studio: Studio, asked: Asked) -> AsyncIterator[bytes]:
    """Server-sent events: previews spread evenly over the steps, then every picture; an error is an event too."""
    sent, shown = 0, asked.partials
    async with contextlib.aclosing(watch(studio, asked.user, asked.job, shown > 0)) as previews:
        async for preview in previews:
            if preview is None:
                yield b": still here\n\n"
            elif sent < shown and _share(preview) >= (sent + 1) / (shown + 1):
                yield _event(asked, "partial_image", preview["png"], partial_image_index=sent)
                sent += 1
    try:
        pictures = done(studio, asked.user, asked.job).pictures
        encoded = await run(_encoded, await run(contents, studio, asked.user, pictures), asked.size)
    except Failure as failure:
        error = {"message": str(failure), "type": failure.kind, "param": failure.param, "code": None}
        yield f"event: error\ndata: {json.dumps({'error': error})}\n\n".encode()
        return
    for picture in encoded:
        yield _event(asked, "completed", picture, usage=NOT_COUNTED, seed=asked.seed)


def _share(preview: Preview) -> float:
    """How much of a job is done."""
    return preview["step"] / max(preview["steps"], 1)


def _event(asked: Asked, what: str, encoded: str, **more: Any) -> bytes:
    """An event as bytes of a stream."""
    with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=["PNG"]) as picture:
        size = f"{picture.width}x{picture.height}"
    kind = f"{asked.name}.{what}"
    data = {
        "type": kind, "b64_json": encoded, "created_at": int(time.time()), "size": size, "quality": "auto",
        "background": "opaque", "output_format": "png", **more,
    }  # fmt: skip
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
