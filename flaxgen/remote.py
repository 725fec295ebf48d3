"""A model of a studio elsewhere, asked as if it were here: `flaxgen.connect(URL).draw("a red circle")`.

It needs no extra: the standard library asks, and what comes back are the same pictures as of a local model.
"""

import contextlib
import inspect
import io
import ipaddress
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flaxgen import bounded_json
from flaxgen.data.decode import decode_image
from flaxgen.family.pictures import ABOUT, Layout, Pictures, encode_png
from flaxgen.family.request import read_input

LARGEST = 256 * 2**20
"""Bytes of an answer, at most."""
TIMEOUT = 60.0
"""Seconds without an answer."""
WAITS = (0.05, 1.0)
"""Seconds between two looks at a job: the first, and the longest after ever longer ones."""
OVER = ("done", "failed", "cancelled")
PICTURES = ("picture", "mask")
LAYOUTS: Mapping[str, Layout] = {"draw": "rows", "blend": "strip", "edit": "strip"}
"""How sheets of what these verbs draw are laid out; others are grids."""
OF_ONE_PICTURE = ("picture", "of", "score")
"""What a picture says of itself and not of all that were drawn with it."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A studio never sends elsewhere; a token that followed would be shown to strangers."""

    def redirect_request(self, *arguments):
        return None


class Wire:
    """Requests to a studio at an address, as a user."""

    def __init__(self, url: str, token: str | None, user: str | None):
        split = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if split.scheme not in ("http", "https") or not split.hostname:
            raise ValueError(f"{url!r} is no address of a studio: expected one such as http://localhost:7860")
        self.url = f"{split.scheme}://{split.netloc}{split.path.rstrip('/')}"
        token = token or urllib.parse.parse_qs(split.fragment).get("token", [""])[0]
        self._headers = {"X-Flaxgen": "1"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._headers |= {"X-Flaxgen-User": user} if user else {}
        near = [urllib.request.ProxyHandler({})] if _is_near(split.hostname) else []
        self._open = urllib.request.build_opener(_NoRedirect, *near).open

    def send(self, path: str, content: bytes | None = None, kind: str = "application/json") -> bytes:
        """The body of the answer; with content it is a POST.

        Raises:
            ValueError: what the studio says is wrong, or that there is none.
        """
        headers = self._headers | ({} if content is None else {"Content-Type": kind})
        request = urllib.request.Request(self.url + path, content, headers)
        try:
            with self._open(request, timeout=TIMEOUT) as reply:
                body = reply.read(LARGEST + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(_said(error.read(2**16), error.code, self.url)) from None
        except (OSError, ValueError) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split())
            raise ValueError(f"no studio answers at {self.url}: {reason}") from None
        if len(body) > LARGEST:
            raise ValueError(f"{self.url} answers with more than {LARGEST:,} bytes")
        return body

    def ask(self, path: str, values: Any = None) -> Any:
        """The JSON of the answer; with values it is a POST of them as JSON."""
        body = self.send(path, None if values is None else json.dumps(values).encode())
        try:
            return bounded_json.loads(body)
        except ValueError as error:
            raise ValueError(f"{self.url} is no studio: {error}") from None


class Verb(NamedTuple):
    """What can be asked, by the JSON schema of its request."""

    name: str
    schema: Mapping[str, Any]

    @property
    def signature(self) -> inspect.Signature:
        """What has to be given may be given by its place, as in a local model's method."""
        parameters = []
        for name, entry in self.schema["properties"].items():
            is_needed = name in self.schema["required"]
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if is_needed else inspect.Parameter.KEYWORD_ONLY
            default = inspect.Parameter.empty if is_needed else entry.get("default")
            parameters.append(inspect.Parameter(name, kind, default=default))
        return inspect.Signature(sorted(parameters, key=lambda one: one.kind), return_annotation=Pictures)


class RemoteModel:
    """A model of a studio: its verbs are methods that return `Pictures`; `models` names all that the studio has, and
    `model(name)` is another one."""

    def __init__(self, wire: Wire, models: Mapping[str, Mapping[str, Any]], name: str):
        self._wire, self.models, self.name = wire, models, name
        verbs = wire.ask(f"/api/models/{urllib.parse.quote(name, safe='')}/verbs")
        self._verbs = {verb: Verb(verb, found["schema"]) for verb, found in verbs.items()}

    def model(self, name: str) -> "RemoteModel":
        """Another model of the same studio.

        Raises:
            ValueError: if there is none.
        """
        if name not in self.models:
            raise ValueError(f"the studio has no model {name!r}: expected {', '.join(self.models)}")
        return RemoteModel(self._wire, self.models, name)

    @property
    def verbs(self) -> tuple[str, ...]:
        """What can be asked of it."""
        return tuple(self._verbs)

    def __getattr__(self, name: str) -> Callable[..., Pictures]:
        verbs = {} if name.startswith("_") else self._verbs
        if name not in verbs:
            known = ", ".join(verbs)
            raise AttributeError(f"this model has no {name!r}" + (f": it has {known}" if known else ""))
        return _method_of(self._wire, self.name, verbs[name])

    def __dir__(self):
        return [*super().__dir__(), *self._verbs]

    def __repr__(self) -> str:
        lines = [f"{self.name} at {self._wire.url}, {self.models[self.name]['description']}"]
        return "\n".join([*lines, *(f"  .{name}{verb.signature}" for name, verb in self._verbs.items())])


def connect(url: str, token: str | None = None, user: str | None = None, model: str | None = None) -> RemoteModel:
    """A model of the studio at that address, by default its first one.

    Raises:
        ValueError: if nothing answers there, the token is another one, or there is no such model.
    """
    wire = Wire(url, token, user)
    try:
        models = {card["name"]: card for card in wire.ask("/api/models")["models"]}
    except (KeyError, TypeError):
        models = {}
    if not models:
        raise ValueError(f"{wire.url} is no studio with models")
    name = next(iter(models)) if model is None else model
    if name not in models:
        raise ValueError(f"the studio has no model {name!r}: expected {', '.join(models)}")
    return RemoteModel(wire, models, name)


def _method_of(wire: Wire, model: str, verb: Verb) -> Callable[..., Pictures]:
    """A function of the request's fields, with a signature and a help of its own."""

    def method(*arguments, **keywords):
        given = signature.bind(*arguments, **keywords).arguments
        fields = {name: _sent(wire, verb.schema["properties"][name], value) for name, value in given.items()}
        job = wire.ask("/api/jobs", {"model": model, "verb": verb.name, "request": fields})
        return _pictures(wire, _finished(wire, job))

    signature = verb.signature
    method.__name__ = method.__qualname__ = verb.name
    helps = [f"    {name}: {entry.get('description', '')}" for name, entry in verb.schema["properties"].items()]
    method.__doc__ = "\n".join([f"{verb.name} with {model}, at {wire.url}", "", "Args:", *helps, ""])
    vars(method)["__signature__"] = signature
    return method


def _sent(wire: Wire, schema: Mapping[str, Any], value: Any) -> Any:
    """A field's value as JSON; pictures are sent before, and are called by the ids that they get."""
    is_many = schema["type"] == "array"
    one = schema["items"] if is_many else schema
    if one.get("format") not in PICTURES:
        return _plain([value] if is_many and isinstance(value, str) else value)
    if value is None:
        return None
    if not is_many:
        return _upload(wire, value, one["format"])
    several = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 4)
    return [_upload(wire, each, one["format"]) for each in (value if several else [value])]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value


def _upload(wire: Wire, value: Any, kind: str) -> str:
    pixels = read_input(value, 1 if kind == "mask" else 3).pixels
    return bounded_json.loads(wire.send("/api/pictures", encode_png(pixels), "image/png"))["id"]


def _finished(wire: Wire, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job once it is done. Whoever stops waiting for it, as with Ctrl+C, cancels it.

    Raises:
        ValueError: if it fails or is cancelled.
    """
    path, wait = f"/api/jobs/{job['id']}", WAITS[0]
    with _cancelled_if_left(wire, path):
        while job["state"] not in OVER:
            time.sleep(wait)
            wait = min(1.2 * wait, WAITS[1])
            job = wire.ask(path)
    if job["state"] != "done":
        raise ValueError(f"{job['verb']}: {job['error'] or 'it was cancelled'}")
    return job


@contextlib.contextmanager
def _cancelled_if_left(wire: Wire, path: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(ValueError):
            wire.send(f"{path}/cancel", b"")
        raise


def _pictures(wire: Wire, job: Mapping[str, Any]) -> Pictures:
    """What a job drew; every file says how."""
    read = [_read(wire.send(f"/api/pictures/{id}")) for id in job["pictures"]]
    if not read:
        raise ValueError(f"{job['verb']}: its pictures were deleted")
    said = [about for _, about in read]
    scores = tuple(about["score"] for about in said if "score" in about)
    about = {name: value for name, value in said[0].items() if name not in OF_ONE_PICTURE}
    captions = tuple(job["request"].get("captions") or ())
    arrays = np.stack([pixels for pixels, _ in read])
    return Pictures(arrays, LAYOUTS.get(job["verb"], "grid"), captions, scores=scores, about=about)


def _read(png: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """The pixels of a PNG file, and what it says of itself."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        channels, text = 1 if picture.mode == "L" else 3, picture.info.get(ABOUT, "{}")
    return decode_image(png, channels), bounded_json.loads(text)


def _said(content: bytes, status: int, url: str) -> str:
    """What an error says, in one line."""
    try:
        return str(bounded_json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{url} answers with status {status}"


def _is_near(host: str) -> bool:
    """Whether it is this machine, to which no proxy leads."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
