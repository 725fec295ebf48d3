"""How the server says that something cannot be: one shape of JSON for all errors."""

import json
from collections.abc import Mapping

from starlette.responses import JSONResponse


class Failure(Exception):
    """A request that cannot be answered, with the status and the field that is meant."""

    def __init__(
        self, status: int, message: str, param: str | None = None, kind: str = "invalid_request",
        headers: Mapping[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.kind, self.headers = status, message, param, kind, headers


def missing(what: str) -> Failure:
    """What there is not, or is another user's: nobody learns which."""
    return Failure(404, f"there is no such {what}", kind="not_found")


class Ascii(JSONResponse):
    """JSON without other letters than ASCII: half a character in a message breaks no reply."""

    def render(self, content: object) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_reply(
    status: int, message: str, kind: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The error as every client finds it."""
    error = {"message": " ".join(message.split())[:500], "type": kind, "param": param, "code": None}
    return Ascii({"error": error}, status, dict(headers or {}))
