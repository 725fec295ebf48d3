"""The gate before everything else: who may come in, from where, and how much they may bring.

It is ASGI around the whole application and lets nothing through that it does not know: a route that is added later is
behind it too.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple

from flaxgen.app.limits import Limits
from flaxgen.app.store import new_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
"""Names by which this machine calls itself."""
SAFE = ("GET", "HEAD")
WRITING = ("POST", "DELETE")
LINKS = "/v1/images/files/"
"""Where pictures are for whoever has their link, which nobody can guess and which ends."""
OPEN_PATHS = re.compile(rf"/|/assets/[A-Za-z0-9._-]+|{LINKS}[A-Za-z0-9._-]+")
"""What may be read without a token: the page, which then shows one, and links."""
OTHERS = ("/v1/", "/sdapi/v1/")
"""Where programs ask that know OpenAI's API, or A1111's, and no header of ours."""
BASIC = "/sdapi/v1/"
"""Where HTTP Basic is taken, with the token as its password."""
SESSION = "/api/session"
NAME = re.compile(r"[a-z0-9-]{1,32}")
USER = re.compile(r"[A-Za-z0-9_-]{22}")
HEADER = b"x-flaxgen"
UPLOADS = (
    "/api/pictures", "/api/read", "/v1/images/edits", "/v1/images/variations", "/sdapi/v1/img2img",
    "/sdapi/v1/png-info",
)  # fmt: skip
CSP = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


class Door(NamedTuple):
    """Who is let in: the token ("" for none), a secret of this server that signs its cookies, the names that it may be
    called by (an address is one by itself if `addresses`), and the port it is at."""

    token: str
    secret: bytes
    names: frozenset[str]
    addresses: bool
    port: int

    def is_token(self, shown: str) -> bool:
        """Compares in constant time."""
        digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (shown, self.token)]
        return bool(self.token) and hmac.compare_digest(*digests)

    def sign(self, *words: str) -> str:
        """What only this server can write under these words."""
        return hmac.new(self.secret, "\0".join(words).encode(), hashlib.sha256).hexdigest()

    @property
    def user_cookie(self) -> str:
        """The cookie's name; another studio on this host is at another port and has another."""
        return f"flaxgen-user-{self.port}"

    @property
    def session_cookie(self) -> str:
        """The cookie's name."""
        return f"flaxgen-session-{self.port}"

    def user_of(self, cookies: Mapping[str, str]) -> str | None:
        """The user whom this server gave these cookies."""
        user, _, mark = cookies.get(self.user_cookie, "").partition(".")
        known = USER.fullmatch(user) and hmac.compare_digest(mark.encode(), self.sign("user", user).encode())
        return user if known else None

    def has_session(self, cookies: Mapping[str, str], user: str | None) -> bool:
        """Whether that user has shown the token."""
        mark = cookies.get(self.session_cookie, "")
        return user is not None and hmac.compare_digest(mark.encode(), self.session(user).encode())

    def session(self, user: str) -> str:
        """What the session cookie of a user holds; it ends with the token."""
        return self.sign("session", user, self.token)

    def welcome(self) -> tuple[str, str]:
        """A new user, and the value of its cookie."""
        user = new_id()
        return user, f"{user}.{self.sign('user', user)}"


class Refusal(Exception):
    """A request that is not let through."""

    def __init__(self, status: int, message: str, kind: str = "forbidden"):
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


class Guard:
    """Around an application; what it lets through has `user` in its state, and `cookies`."""

    def __init__(self, app: ASGI, door: Door, limits: Limits):
        self._app, self._door, self._limits = app, door, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None
        started = False

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = [pair for pair in message.get("headers", []) if pair[0] not in dict(HEADERS)]
                message = {**message, "headers": [*given, *HEADERS]}
            await send(message)

        try:
            self._admit(scope)
            await self._app(scope, self._bounded(scope, receive), answer)
        except Refusal as refusal:
            if not started:
                await refuse(answer, refusal)

    def _admit(self, scope: Scope) -> None:
        headers = scope["headers"]
        _check_method(scope["method"])
        _check_framing(headers)
        host = _only(headers, b"host")
        self._check_host(host)
        self._check_origin(scope, headers, host)
        name, bearer = self._bearer(scope, headers)
        cookies = _cookies(headers)
        user = self._door.user_of(cookies)
        named = bool(self._door.token) and bearer
        let_in = not self._door.token or bearer or self._door.has_session(cookies, user)
        if not let_in and not _is_open(scope):
            raise Refusal(401, "this studio needs a token: Authorization: Bearer TOKEN", "unauthorized")
        if scope["method"] in WRITING:
            _check_intent(scope, headers, named)
            self._check_length(scope, headers)
        state = scope.setdefault("state", {})
        state["user"] = _user(headers, None if named else user, name)
        state["cookies"] = cookies
        state["cookie_user"] = user

    def _check_host(self, host: str) -> None:
        name = re.sub(r":\d{1,5}\Z", "", host).lower()
        if name in self._door.names:
            return
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise Refusal(421, "this studio has another name") from None
        if not self._door.addresses:
            raise Refusal(421, "this studio has another address")

    def _check_origin(self, scope: Scope, headers: list, host: str) -> None:
        """A page of another site may not write here, nor read what belongs to a user; it may link to the page."""
        site = _first(headers, b"sec-fetch-site")
        foreign = site is not None and site not in ("same-origin", "none")
        if foreign and not (scope["method"] in SAFE and scope["path"] == "/"):
            raise Refusal(403, "a page of another site asks")
        origin = _first(headers, b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refusal(403, "a page of another origin asks")

    def _bearer(self, scope: Scope, headers: list) -> tuple[str, bool]:
        """The name that HTTP Basic gives, and whether the token is shown."""
        shown = _first(headers, b"authorization")
        if not shown:
            return "", False
        scheme, _, token = shown.partition(" ")
        scheme, name, token = scheme.lower(), "", token.strip()
        if scheme == "basic" and scope["path"].startswith(BASIC):
            name, _, token = _decoded(token).partition(":")
            scheme = "bearer"
        if self._door.token and not (scheme == "bearer" and self._door.is_token(token)):
            raise Refusal(401, "the token is another one", "unauthorized")
        return name, bool(self._door.token)

    def _check_length(self, scope: Scope, headers: list) -> None:
        length = _first(headers, b"content-length")
        if length is not None and (not re.fullmatch(r"\d{1,15}", length) or int(length) > self._most(scope)):
            raise Refusal(413, f"a body of at most {self._most(scope):,} bytes is taken", "too_large")

    def _most(self, scope: Scope) -> int:
        return self._limits.upload if scope["path"] in UPLOADS else self._limits.json

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that ends a body which is too large or too slow."""
        taken, done, most = 0, scope["method"] in SAFE, self._most(scope)
        until = asyncio.get_running_loop().time() + self._limits.body_time

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal taken, done
            if done:
                return await receive()
            left = until - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                raise Refusal(408, "the body takes too long", "too_slow") from None
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                done = not message.get("more_body", False)
                if taken > most:
                    raise Refusal(413, f"a body of at most {most:,} bytes is taken", "too_large")
            return message

        return bounded


async def refuse(send: Send, refusal: Refusal) -> None:
    """Sends why."""
    error = {"message": refusal.message, "type": refusal.kind, "param": None, "code": None}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if refusal.status == 401 else []
    headers += [(b"connection", b"close")] if refusal.status in (400, 408, 413) else []
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_open(scope: Scope) -> bool:
    reads = scope["method"] in SAFE and OPEN_PATHS.fullmatch(scope["path"]) is not None
    return reads or (scope["method"] == "POST" and scope["path"] == SESSION)


def _check_method(method: str) -> None:
    if method not in (*SAFE, *WRITING):
        raise Refusal(405, f"{method[:16]} is not known here", "method_not_allowed")


def _check_framing(headers: list) -> None:
    """Whoever stands between may believe the length, and what follows the chunks would be a request that it never saw
    (RFC 9112, 6.3)."""
    if _first(headers, b"transfer-encoding") is not None and _first(headers, b"content-length") is not None:
        raise Refusal(400, "a body has a length or is chunked: both are said", "invalid_request")


def _check_intent(scope: Scope, headers: list, named: bool) -> None:
    """A form or a link of another page cannot set a header: a program does, or a page of ours."""
    known = named or _first(headers, HEADER) == "1"
    if not (known or (scope["path"].startswith(OTHERS) and _is_of_program(headers))):
        raise Refusal(403, "a request that writes needs the header X-Flaxgen: 1")


def _is_of_program(headers: list) -> bool:
    """Whether no form of another page can have sent this: it has what a form cannot send, or nothing of what every
    browser sends along."""
    kind = (_first(headers, b"content-type") or "").partition(";")[0].strip().lower()
    asked = _first(headers, b"authorization") is not None or kind == "application/json"
    return asked or all(_first(headers, name) is None for name in (b"origin", b"sec-fetch-site", b"cookie"))


def _user(headers: list, cookie: str | None, basic: str) -> str:
    """Whose jobs and pictures are meant: a browser's by its cookie, a program's by the name that it gives."""
    if cookie is not None:
        return f"browser:{cookie}"
    name = _first(headers, b"x-flaxgen-user")
    name = basic or None if name is None else name
    if name is not None and not NAME.fullmatch(name):
        raise Refusal(400, "the user (X-Flaxgen-User): expected 1 to 32 of a-z, 0-9 and -", "invalid_request")
    return f"program:{name or 'api'}"


def _decoded(text: str) -> str:
    """What HTTP Basic has, NAME:PASSWORD; "" where it is none."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _first(headers: list, name: bytes) -> str | None:
    """The value of a header.

    Raises:
        Refusal: if it is there twice.
    """
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise Refusal(400, f"the header {name.decode()} is there twice", "invalid_request")
    return values[0].decode("latin-1") if values else None


def _only(headers: list, name: bytes) -> str:
    value = _first(headers, name)
    if value is None:
        raise Refusal(400, f"the header {name.decode()} is missing", "invalid_request")
    return value


def _cookies(headers: list) -> dict[str, str]:
    text = _first(headers, b"cookie") or ""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(text[:4096]).items()}
    except CookieError:
        return {}
