"""The ten rules by which the studio faces a network, each broken here in every way that is known."""

import os
import re
import stat
import sys
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")

from studio_toy import WRITES, png, raw, served

import flaxgen.app
from flaxgen.app import guard, limits, serve, shelf
from flaxgen.cli import main

TOKEN = "a token that is long enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FOREIGN = "http://evil.example"
JOB = {"model": "fake", "verb": "draw", "request": {"captions": ["a ring"], "num": 1}}


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A studio that wants a token."""
    with served(tmp_path_factory.mktemp("locked") / "studio", token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """A studio on this machine that wants none."""
    with served(tmp_path_factory.mktemp("free") / "studio") as running:
        yield running


# 1: loopback alone, or a token


@pytest.mark.parametrize(
    ("host", "token"), [("0.0.0.0", ""), ("::", ""), ("192.168.0.7", ""), ("studio.example", "short")]
)
def test_another_host_needs_a_token(host, token, tmp_path, capsys):
    assert main(["studio", "--host", host, "--token", token, "--folder", str(tmp_path / "studio")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flaxgen studio: error: --host {host} can be reached from other machines: give --token")
    assert not (tmp_path / "studio").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host):
    assert serve.check_host(host, "")
    assert not serve.check_host("0.0.0.0", TOKEN)


@pytest.mark.parametrize("memory", ["0", "-1", "nan", "inf"])
def test_models_need_some_memory(memory, tmp_path, capsys):
    assert main(["studio", f"--memory={memory}", "--folder", str(tmp_path / "studio")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"flaxgen studio: error: --memory {memory}: expected GiB above 0"


def test_memory_is_that_of_the_models(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(serve, "_serve", lambda *given: seen.append(given[-1].model_memory))
    serve.serve([], tmp_path, port=0, memory=1.5)
    serve.serve([], tmp_path, port=0)
    assert seen == [3 * 2**29, 8 * 2**30]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "8.8.8.8", ""])
def test_a_name_that_is_not_ours_is_refused(host, free):
    """DNS rebinding: the browser believes that the studio is the other site."""
    reply = httpx.get(f"{free.url}/api/status", headers={"Host": host})
    assert reply.status_code == 421


def test_two_hosts_or_none_are_refused(free):
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        assert raw(free, b"GET /api/status HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n").startswith(
            b"HTTP/1.1 400"
        )


# 2: one gate before all routes


ROUTES = ["/api/status", "/api/models", "/api/jobs", "/api/events", "/api/gallery", "/openapi.json", "/nothing",
          "/api/pictures/a", "/docs", "/api/session", "//", "/assets/../api/status", "/assets/a/b"]  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
def test_nothing_but_the_page_is_seen_without_the_token(path, locked):
    answer = raw(locked, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401"), answer[:200]


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_another_token_is_none(shown, locked):
    for method in ("GET", "POST"):
        assert httpx.request(method, f"{locked.url}/api/jobs", headers={"Authorization": shown}).status_code == 401


def test_the_token_opens(locked):
    assert httpx.get(f"{locked.url}/api/status", headers=BEARER).json()["user"] == "api"
    named = {**BEARER, "X-Flaxgen-User": "bob"}
    assert httpx.get(f"{locked.url}/api/status", headers=named).json()["user"] == "bob"
    for name in ("Bob", "b" * 33, "../x", ""):
        assert httpx.get(f"{locked.url}/api/status", headers={**BEARER, "X-Flaxgen-User": name}).status_code == 400


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    door = guard.Door(TOKEN, b"s", frozenset(), False, 1)
    assert door.is_token(TOKEN)
    assert not door.is_token("x")
    assert [len(one) for pair in compared for one in pair] == [32] * 4, "hashes: not even the length is seen"
    assert not guard.Door("", b"s", frozenset(), False, 1).is_token("")


def test_a_browser_shows_the_token_once(locked):
    with httpx.Client(base_url=locked.url, headers=WRITES) as browser:
        page = browser.get("/")
        assert page.status_code == 200
        assert browser.get("/api/status").status_code == 401
        assert browser.post("/api/session", json={"token": "wrong"}).status_code == 401
        assert browser.get("/api/status").status_code == 401
        opened = browser.post("/api/session", json={"token": TOKEN})
        assert opened.status_code == 204
        for cookie in (*page.headers.get_list("set-cookie"), *opened.headers.get_list("set-cookie")):
            assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
            assert TOKEN not in cookie
        user = browser.get("/api/status").json()["user"]
        assert len(user) == 22
        cookies = dict(browser.cookies)
    mark = next(name for name in cookies if name.startswith("flaxgen-session"))
    forged = {**cookies, mark: cookies[mark][:-1] + ("0" if cookies[mark][-1] != "0" else "1")}
    assert httpx.get(f"{locked.url}/api/status", headers={"Cookie": _cookie(forged)}).status_code == 401
    assert httpx.get(f"{locked.url}/api/status", headers={"Cookie": _cookie(cookies)}).status_code == 200


def test_the_secret_token_is_in_no_answer(locked):
    for path in ("/api/status", "/api/models", "/openapi.json", "/api/nothing"):
        assert TOKEN not in httpx.get(f"{locked.url}{path}", headers=BEARER).text


def _cookie(cookies):
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def test_a_user_cannot_be_made_up(free):
    with httpx.Client(base_url=free.url, headers=WRITES) as browser:
        browser.get("/")
        ((name, value),) = dict(browser.cookies).items()
        mine = browser.get("/api/status").json()["user"]
    assert value.startswith(f"{mine}.")
    for forged in (mine, f"{mine}.", f"{'a' * 22}.{value.partition('.')[2]}", f"{mine}.{'0' * 64}"):
        assert httpx.get(f"{free.url}/api/status", headers={"Cookie": f"{name}={forged}"}).json()["user"] == "api"


# 2 and 4: what belongs to another is not there


def test_what_is_anothers_is_not_there(free):
    with free.client() as owner, free.client(**{"X-Flaxgen-User": "other"}) as other:
        job = free.finish(owner, owner.post("/api/jobs", json=JOB).json()["id"])
        (picture,) = job["pictures"]
        before = owner.get(f"/api/pictures/{picture}/info").json()
        tried = [
            other.get(f"/api/jobs/{job['id']}"),
            other.post(f"/api/jobs/{job['id']}/cancel"),
            *(other.get(f"/api/pictures/{picture}{view}") for view in ("", "/thumbnail", "/info", "/history")),
            other.post(f"/api/pictures/{picture}/favourite", json={"favourite": True}),
            other.delete(f"/api/pictures/{picture}"),
        ]
        assert [reply.status_code for reply in tried] == [404] * len(tried)
        nothing = other.get(f"/api/pictures/{'a' * 22}")
        assert nothing.json() == tried[2].json(), "nobody learns that it is there"
        for request in ({"image": picture}, {"image": "a" * 22}):
            reply = other.post("/api/jobs", json={"model": "fake", "verb": "vary", "request": request})
            assert reply.json()["error"]["message"] == "image: there is no such picture"
        assert other.post("/api/jobs", json={**JOB, "parent": picture}).status_code == 400
        assert other.get(f"/api/jobs?before={job['id']}").json() == {"jobs": []}
        assert other.get("/api/gallery").json()["pictures"] == []
        read = other.post("/api/read", content=owner.get(f"/api/pictures/{picture}").content,
                          headers={"Content-Type": "image/png"})  # fmt: skip
        assert read.json()["request"]["captions"] == ["a ring"]
        assert owner.get(f"/api/pictures/{picture}/info").json() == before


# 3: no other site writes


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"},
        {"X-Flaxgen": "0"},
        {"X-Flaxgen": ""},
    ],
)
def test_other_sites_do_not_write(headers, free):
    host = free.url.removeprefix("http://")
    headers = {**WRITES, **{name: value.format(host=host) for name, value in headers.items()}}
    reply = httpx.post(f"{free.url}/api/jobs", json=JOB, headers=headers)
    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_our_own_page_writes(free):
    for headers in ({"Origin": free.url, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert httpx.post(f"{free.url}/api/jobs", json=JOB, headers={**WRITES, **headers}).status_code == 201


def test_other_sites_read_nothing_and_there_is_no_cors(free):
    for path in ("/api/status", "/api/gallery", f"/api/pictures/{'a' * 22}", "/api/events"):
        assert httpx.get(f"{free.url}{path}", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    asked = {"Origin": FOREIGN, "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{free.url}/api/jobs", headers=asked).status_code >= 400
    assert httpx.get(f"{free.url}/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "a link to the page"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_forms_are_no_json(kind, free):
    body = b'{"model":"fake","verb":"draw","request":{"captions":["a"]}}'
    reply = httpx.post(f"{free.url}/api/jobs", content=body, headers={**WRITES, "Content-Type": kind})
    assert reply.status_code in (400, 415)


def test_no_get_writes(free):
    """Of every route that may be read, none changes what is kept."""
    with free.client() as client:
        openapi = client.get("/openapi.json").json()
        job = free.finish(client, client.post("/api/jobs", json=JOB).json()["id"])
        kept = (client.get("/api/jobs").json(), client.get("/api/gallery").json())
        for path, operations in openapi["paths"].items():
            filled = path.format(name="fake", verb="draw", job=job["id"], picture=job["pictures"][0])
            if "get" in operations and path != "/api/events":
                assert client.get(filled).status_code == 200
            for method in {"get", "put", "patch", "trace", "options"} - set(operations):
                assert client.request(method, filled).status_code in (404, 405)
        assert kept == (client.get("/api/jobs").json(), client.get("/api/gallery").json())


# 4: no paths, no addresses


@pytest.mark.parametrize(
    "path",
    ["/api/pictures/..%2fsecret", "/api/pictures/../secret", "/assets/..%2f..%2fserve.py", "/assets/index.html%00.js",
     "/assets/../../serve.py", "/assets/%2e%2e/application.py", "/api/pictures/" + "a" * 23, "/api/jobs/" + "%61" * 500,
     "/assets/index.html", "/..", "/%2e%2e/%2e%2e/etc/passwd", "http://evil.example/api/status"],
)  # fmt: skip
def test_no_path_leads_to_a_file(path, free):
    answer = raw(free, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:200]


def test_files_are_found_by_hashes_and_through_no_link(tmp_path):
    kept = shelf.Shelf(tmp_path / "shelf")
    sha = kept.put(png())
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"secret")
    for wrong in ("../outside", str(outside), sha[:-1], sha.upper(), f"{sha}\n"):
        with pytest.raises(ValueError, match="is no hash"):
            kept.read(wrong)
    (tmp_path / "shelf" / "pictures" / f"{'0' * 64}.png").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        kept.read("0" * 64)
    kept.close()


# 5: nothing that is read is run


def test_no_code_of_the_studio_reads_pickles_or_starts_programs():
    text = "\n".join(path.read_text() for path in Path(flaxgen.app.__file__).parent.glob("*.py"))
    assert not re.findall(r"\b(pickle|marshal|shelve|eval\(|exec\(|subprocess|os\.system|importlib|torch)\b", text)


# 6 is in `test_bodies.py`

# 7: what is sent is what it is said to be


def test_every_answer_is_shut_in(free, locked):
    with free.client() as client:
        job = free.finish(client, client.post("/api/jobs", json=JOB).json()["id"])
        paths = (f"/api/pictures/{job['pictures'][0]}", "/api/models", "/nothing", "/")
        replies = [client.get(path) for path in paths]
    for reply in (*replies, httpx.get(f"{locked.url}/api/status")):
        policy = reply.headers["content-security-policy"].split("; ")
        assert policy[:2] == ["default-src 'self'", "img-src 'self' blob: data:"]
        assert not [part for part in policy if "unsafe" in part]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in reply.headers
    assert replies[0].headers["content-type"] == "image/png"


def test_the_page_has_no_inline_scripts():
    page = Path(flaxgen.app.__file__).parent / "page" / "index.html"
    if page.is_file():
        text = page.read_text()
        assert not re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=", text)
        assert not re.findall(r"""(?:src|href)=["'](?!/assets/)""", text)


# 8 is `test_jobs.test_what_cannot_be_is_refused_by_the_name_of_its_field`, 9 `test_users_take_turns_and_have_limits`


def test_listeners_have_a_limit(tmp_path):
    few = limits.Limits()._replace(listeners=1)
    with (
        served(tmp_path / "studio", limits=few) as here,
        here.client() as client,
        client.stream("GET", "/api/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == ": hello"
        full = client.get("/api/events")
        assert (full.status_code, full.headers["retry-after"]) == (429, "5")


# 10: for this user alone, and nothing goes out


def test_what_is_kept_is_the_users_own(free):
    folder = free.studio.shelf.folder
    for path in (folder, folder / "pictures", folder / "thumbnails"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    for path in (folder / "pictures").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_others_may_read_is_shut(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    os.chmod(tmp_path / "open", 0o777)
    assert stat.S_IMODE(shelf.private(tmp_path / "open").stat().st_mode) == 0o700


def test_errors_have_no_paths(free, monkeypatch, capfd):
    monkeypatch.setattr(free.studio.store.__class__, "jobs", lambda *_: 1 / 0)
    reply = httpx.get(f"{free.url}/api/jobs")
    assert (reply.status_code, reply.json()["error"]["message"]) == (500, "the server failed")
    assert "Traceback" not in reply.text
    assert str(Path.home()) not in reply.text


def test_the_studio_calls_nobody():
    """No module of the studio has a client of any kind."""
    folder = Path(flaxgen.app.__file__).parent
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    assert not re.findall(
        r"\b(httpx|requests\.get|urllib|urlopen|aiohttp|create_connection|huggingface_hub|hub)\b", text
    )


def test_without_the_extra_the_command_says_which(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["studio"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'flaxgen[app]'" in line
