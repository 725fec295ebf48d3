"""Hostile requests to every operation of the OpenAPI, and raw ones beside it: none fails the server, leaves its folder,
or sees what is another user's."""

import io
import json
import os
import zipfile
import zlib
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from studio_toy import WRITES, png, raw, served

MALLORY, VICTIM = {"X-Flaxgen-User": "mallory"}, {"X-Flaxgen-User": "victim"}
JOB = {"model": "fake", "verb": "draw", "request": {"captions": ["a secret ring"], "num": 1}}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
TRAVERSAL = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/studio.sqlite",
    "....//secret",
    "/etc/passwd",
    "\\..\\secret",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "a" * 5_000,
    "",
    ".",
    "%00",
    "secret%00.png",
    "%ff%fe",
    "null",
    "-1",
    "' OR 1=1 --",
    "<script>",
    "%0d%0aSet-Cookie:x=1",
]
"""What stands where an id, a name or a number should."""
NUMBERS = [0, -1, 1, 2**31, 2**53, 2**64, 10**40, -(10**40), 0.5, 1e300, -1e300]


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few KiB."""

    def chunk(kind, content):
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(60_000)))
        + chunk(b"IEND", b"")
    )


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("../../evil", b"x")
    return file.getvalue()


BODIES = [
    b"",
    b"{",
    b"[" * 20_000,
    b"null",
    b"\xff\xfe",
    b'{"a":' * 5_000,
    b"GIF89a" + bytes(40),
    SVG,
    bomb(),
    archive(),
    b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    png(),
    png()[:40],
    bytes(300_000),
    b"a=b&" * 5_000,
    b"--x\r\n" + b'Content-Disposition: form-data; name="a"\r\n\r\nb\r\n--x\r\n' * 100,
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="../../evil.png"\r\n\r\n' + SVG + b"\r\n--x--\r\n",
]
KINDS = [
    "application/json",
    "image/png",
    "image/svg+xml",
    "text/plain",
    "multipart/form-data; boundary=x",
    "image/webp",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-7",
    "",
    "x" * 3_000,
]
HEADERS = [
    {},
    {},
    {},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Host": "evil.example"},
    {"Range": "bytes=0-,-1," * 50},
    {"Cookie": "flaxgen=" + "A" * 2_000},
    {"Authorization": "Bearer " + "x" * 2_000},
    {"Authorization": "Basic !!!"},
    {"X-Forwarded-Host": "evil"},
    {"X-HTTP-Method-Override": "DELETE"},
    {"Content-Encoding": "gzip"},
    {"Expect": "x"},
    {"Last-Event-ID": "9" * 99},
    {"X-Flaxgen-User": "../victim"},
    {"X-Flaxgen-User": "VICTIM"},
    {"Accept": "*/" * 500},
]


class Besieged:
    """A studio in which a victim has a job and a picture; nothing of theirs may show, and nothing may be lost."""

    def __init__(self, here, root):
        self.here, self.root, self.asked, self.answered = here, root, 0, 0
        with here.client(**VICTIM) as victim:
            job = here.finish(victim, victim.post("/api/jobs", json=JOB).json()["id"])
            upload = victim.post("/api/pictures", content=png(), headers={"Content-Type": "image/png"}).json()["id"]
            self.theirs = [job["id"], *job["pictures"], upload]
            self.kept = [victim.get("/api/gallery").json(), victim.get("/api/jobs").json()]
            self.openapi = victim.get("/openapi.json").json()
        self.client = httpx.Client(base_url=here.url, headers={**WRITES, **MALLORY}, timeout=20)
        self.operations = [
            (path, method.upper(), operation)
            for path, methods in sorted(self.openapi["paths"].items())
            for method, operation in sorted(methods.items())
            if path != "/api/events"  # which does not end
        ]

    def check(self, status, content):
        assert status < 500, (status, content[:500])
        for theirs in self.theirs:
            assert theirs.encode() not in content, "another user's"
        assert b"a secret ring" not in content
        assert str(self.root).encode() not in content, "a path"

    def check_what_is_left(self):
        self.client.close()
        assert self.answered >= 0.9 * self.asked, "most are answered, and few hung up on"
        with self.here.client(**VICTIM) as victim:
            assert [victim.get("/api/gallery").json(), victim.get("/api/jobs").json()] == self.kept
        outside = {
            os.path.relpath(os.path.join(at, name), self.root) for at, _, names in os.walk(self.root) for name in names
        }
        assert {path for path in outside if not path.startswith("studio/")} == set()
        top = {path.partition("/")[0] for path in os.listdir(self.root / "studio")}
        assert top <= {
            "studio.sqlite",
            "studio.sqlite-wal",
            "studio.sqlite-shm",
            "pictures",
            "thumbnails",
            "secret",
            "lock",
        }


@pytest.fixture(scope="module")
def besieged(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    with served(root / "studio") as here:
        siege = Besieged(here, root)
        yield siege
        siege.check_what_is_left()


hostile = st.sampled_from(TRAVERSAL) | st.text(max_size=30) | st.integers().map(str)
leaf = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(TRAVERSAL[:8]) | st.text(max_size=20)
anything = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def fitting(schema, whole, depth=0):
    """Values of a schema, nearly: so that some requests get past the checks."""
    while "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema and depth < 4:
        return st.one_of([fitting(one, whole, depth + 1) for one in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema and depth < 4:
        fields = {name: fitting(one, whole, depth + 1) | leaf for name, one in schema["properties"].items()}
        needed = {name: fields.pop(name) for name in schema.get("required", ()) if name in fields}
        return st.fixed_dictionaries(needed, optional=fields)
    if kind == "array":
        return st.lists(fitting(schema.get("items", {}), whole, depth + 1), max_size=3)
    simple = {
        "integer": st.integers(-1, 3),
        "number": st.floats(allow_nan=False, width=32),
        "boolean": st.booleans(),
        "string": st.text(min_size=1, max_size=12) | st.sampled_from(["fake", "draw", "a ring"]),
    }
    return simple.get(kind, anything)


def body_of(data, operation, whole):
    """Content and its type: what the operation reads, nearly, or anything."""
    described = operation.get("requestBody", {}).get("content", {})
    if "application/json" in described and data.draw(st.integers(0, 2)):
        value = data.draw(fitting(described["application/json"]["schema"], whole) | anything)
        return json.dumps(value).encode(), "application/json"
    return data.draw(st.sampled_from(BODIES)), data.draw(st.sampled_from(KINDS))


def besiege(siege, data):
    path, method, operation = data.draw(st.sampled_from(siege.operations))
    names = {one["name"]: one["in"] for one in operation.get("parameters", ())}
    for name, place in names.items():
        if place == "path":
            value = data.draw(hostile | st.sampled_from([*siege.theirs, "fake", "draw"]))
            path = path.replace(f"{{{name}}}", quote(value, safe="%./"))
    query = {name: data.draw(hostile) for name, place in names.items() if place == "query" and data.draw(st.booleans())}
    content, kind = body_of(data, operation, siege.openapi)
    headers = {"Content-Type": kind, **data.draw(st.sampled_from(HEADERS))}
    method = data.draw(st.sampled_from([method] * 5 + ["DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"]))
    asked = "".join([path, json.dumps(query), json.dumps(headers)]).encode() + content
    siege.asked += 1
    try:
        reply = siege.client.request(method, path, params=query, content=content, headers=headers)
    except (httpx.ReadError, httpx.WriteError):  # refused in the middle of the body, and hung up
        return
    siege.answered += 1
    shown = reply.content
    for own in siege.theirs:  # what was asked may be repeated
        if own.encode() in asked:
            shown = shown.replace(own.encode(), b"")
    siege.check(reply.status_code, shown)
    if reply.status_code == 201:
        siege.here.studio.worker.cancel("mallory", reply.json().get("id", ""))


CHECKS = [
    HealthCheck.too_slow,
    HealthCheck.function_scoped_fixture,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
]


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=CHECKS)
@given(data=st.data())
def test_hostile_requests_to_every_operation(besieged, data):
    besiege(besieged, data)


@pytest.mark.slow
@settings(max_examples=1_200, deadline=None, database=None, derandomize=True, suppress_health_check=CHECKS)
@given(data=st.data())
def test_a_thousand_hostile_requests(besieged, data):
    besiege(besieged, data)


CLOSE = b"Connection: close\r\n\r\n"
POST = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Flaxgen: 1\r\n"
LINES = [
    b"GET /api/pictures/../../secret HTTP/1.1\r\nHost: localhost\r\n" + CLOSE,
    b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\n" + CLOSE,
    b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n" + CLOSE,
    b"GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n" + CLOSE,
    b"GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Flaxgen-User: mallory\r\nX-Flaxgen-User: victim\r\n" + CLOSE,
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    b"GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Flaxgen-User: victim\r\n\r\n",
    POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Flaxgen : 1\r\nContent-Length: 0\r\n\r\n",
    POST + b"Content-Length: 99999999999\r\n" + CLOSE,
    POST + b"Content-Length: -1\r\n\r\n",
    b"GET /api/jobs\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n" + CLOSE,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 5_000 + CLOSE,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("number", range(len(LINES)))
def test_raw_bytes_that_are_no_request_of_ours(besieged, number):
    answer = raw(besieged.here, LINES[number])
    statuses = [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    besieged.check(max(statuses, default=400), answer)
    assert len(statuses) <= 1, "one request was taken for two"
    assert not statuses or statuses[0] != 201
