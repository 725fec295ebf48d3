"""The studio without a store: who asks waits, has the pictures in the answer, and nothing is kept.

It has no thread of its own: `make_app` asks whoever draws, in this process or elsewhere (scripts/serve_ray.py), and
`draw` is what that one does.
"""

import base64
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.responses import Response

from flaxgen.app import asking, openai, openai_bodies
from flaxgen.app.application import guarded
from flaxgen.app.catalogue import Entry
from flaxgen.app.guard import Door, Guard
from flaxgen.app.joining import likeness
from flaxgen.app.limits import Limits
from flaxgen.app.messages import Asked, Drawing, Name
from flaxgen.app.replies import Ascii, Failure
from flaxgen.app.submitting import check, run
from flaxgen.app.waiting import FINAL
from flaxgen.app.worker import encode, what_failed
from flaxgen.family import request as requests
from flaxgen.family.together import together
from flaxgen.train.config import require


class Drawn(NamedTuple):
    """PNG files, or in one line why there are none; `replica` is who drew."""

    files: list[bytes]
    error: str = ""
    replica: str = ""


Ask = Callable[[Asked], Awaitable[Drawn]]
"""Has a job drawn whose fields are checked.

Raises:
    Failure: if nobody can draw it now.
"""


def without_pictures(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The models with those verbs that need no picture, as none is kept that a request could name.

    Raises:
        ValueError: if one has no such verb.
    """
    found = {}
    for name, entry in entries.items():
        plain = {kind: handler for kind, handler in entry.requests.items() if not _needs_picture(kind)}
        found[name] = entry._replace(requests=plain)
        require(bool(asking.verbs_of(found[name])), f"{name} draws from pictures alone: `flaxgen studio` takes some")
    return found


def _needs_picture(kind: type[requests.Request]) -> bool:
    return any(spec.is_picture and spec.is_positional for spec in requests.specs(kind).values())


def no_picture(id: str, channels: int) -> requests.InputPicture:
    """In the place of `worker.reader`.

    Raises:
        Wrong: always.
    """
    raise asking.Wrong("a request has no picture here: `flaxgen studio` takes some")


def make_app(entries: Mapping[str, Entry], limits: Limits, door: Door, ask: Ask) -> Guard:
    """`POST /api/models/MODEL/VERB`, and of OpenAI's API generations and models, behind the studio's gate."""
    router = APIRouter(default_response_class=Ascii)
    openai.add_models(router, entries)

    async def draw(asked: Asked) -> tuple[Asked, Drawn]:
        request = await run(check, entries, asked, no_picture, limits)
        whole = asked.model_copy(update={"request": asking.as_json(request, asked.request)})
        drawn = await ask(whole)
        if drawn.error:
            raise Failure(500, drawn.error, kind="server_error", headers=FINAL)
        return whole, drawn

    @router.post("/api/models/{name}/{verb}")
    async def post(name: Name, verb: Name, body: dict[str, Any]) -> Drawing:
        """Asks a model for something, and has the pictures: the body is the request itself."""
        asked, drawn = await draw(Asked(model=name, verb=verb, request=body))
        pictures = [base64.b64encode(file).decode() for file in drawn.files]
        return Drawing(model=name, verb=verb, request=asked.request, pictures=pictures, replica=drawn.replica)

    @router.post("/v1/images/generations")
    async def generations(body: openai_bodies.Generation) -> Response:
        """Draws what a prompt says, as OpenAI's API does, with the pictures in the answer."""
        if body.stream:
            raise Failure(400, "stream: nothing is shown before it is drawn here", "stream")
        if body.response_format == "url":
            raise Failure(400, "response_format=url: expected b64_json, as no picture is kept", "response_format")
        meant, size = openai.meaning(entries, limits, body, "draw", body.prompt)
        with openai.in_its_words():
            asked, drawn = await draw(meant)
        return Ascii(await run(openai.reply, drawn.files, size, asked.request["seed"]))

    return guarded([router], entries, limits, door)


def draw(entry: Entry, model: Any, asked: Sequence[Asked], limits: Limits) -> list[Drawn]:
    """What a model draws for each: those of one program together, all others one after the other."""
    alike: dict[str, list[int]] = {}
    for place, one in enumerate(asked):
        alike.setdefault(likeness(entry, one), []).append(place)
    found: dict[int, Any] = {}
    for places in alike.values():
        tasks = [functools.partial(_files, entry, model, asked[place], limits) for place in places]
        found |= zip(places, together(tasks), strict=True)
    outcomes = [found[place] for place in range(len(asked))]
    return [Drawn([], what_failed(one)) if isinstance(one, Exception) else Drawn(one) for one in outcomes]


def _files(entry: Entry, model: Any, asked: Asked, limits: Limits) -> list[bytes]:
    request = asking.read(entry, asked.verb, asked.request, no_picture, limits)
    return encode(model.perform(request), request, asked.request)
