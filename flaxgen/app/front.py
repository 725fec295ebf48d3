"""The page: files that were built before, read once when the server starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from flaxgen.app.guard import SESSION, Door
from flaxgen.app.messages import Token
from flaxgen.app.replies import Failure, missing

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".json": "application/json",
}
UNBUILT = (
    "flaxgen studio runs, but its page is not built: `make page` does that, with Node. The API is at /openapi.json.\n"
)


class File(NamedTuple):
    """A file of the page."""

    content: bytes
    kind: str


def read_files(folder: Path = FOLDER) -> Mapping[str, File]:
    """The files of the page by name; none of other kinds than TYPES."""
    paths = [folder / "index.html", *sorted((folder / "assets").glob("*"))]
    return {path.name: File(path.read_bytes(), TYPES[path.suffix]) for path in paths
            if path.is_file() and path.suffix in TYPES}  # fmt: skip


def make_router(door: Door) -> APIRouter:
    """The page, its files, and the session that it begins with a token."""
    router, files = APIRouter(include_in_schema=False), read_files()

    @router.get("/")
    def index(request: Request) -> Response:
        found = files.get("index.html")
        reply = PlainTextResponse(UNBUILT) if found is None else Response(found.content, media_type=found.kind)
        reply.headers["Cache-Control"] = "no-cache"
        if request.state.cookie_user is None:
            give_cookie(reply, door.user_cookie, door.welcome()[1])
        return reply

    @router.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in files or name == "index.html":
            raise missing("file")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(files[name].content, media_type=files[name].kind, headers=headers)

    @router.post(SESSION)
    def session(body: Token, request: Request) -> Response:
        """Takes the token and gives a cookie for it."""
        if door.token and not door.is_token(body.token):
            raise Failure(401, "the token is another one", "token", "unauthorized")
        reply = Response(status_code=204)
        user = request.state.cookie_user
        if user is None:
            user, value = door.welcome()
            give_cookie(reply, door.user_cookie, value)
        give_cookie(reply, door.session_cookie, door.session(user))
        return reply

    return router


def give_cookie(reply: Response, name: str, value: str) -> None:
    """A cookie that scripts cannot read and other sites cannot send; it lasts a year."""
    reply.set_cookie(name, value, max_age=365 * 86_400, httponly=True, samesite="strict", path="/")
