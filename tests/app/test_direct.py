"""The studio without a store: pictures in the answer, jobs of one program together, and the studio's own gate."""

import asyncio
import base64
import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from studio_toy import WRITES, Brush, entry_of

from flaxgen.app import direct
from flaxgen.app.guard import LOOPBACK, Door
from flaxgen.app.limits import Limits
from flaxgen.app.messages import Asked
from flaxgen.app.replies import Failure
from flaxgen.family.pictures import ABOUT
from flaxgen.family.requests import Vary

TOKEN = "a-token-of-enough-characters"


@pytest.fixture
def brush():
    return Brush()


@pytest.fixture
def entries(brush):
    return direct.without_pictures({"fake": entry_of(brush)})


def job(**request):
    return Asked(model="fake", verb="draw", request={"captions": ["a ring"], "num": 1, **request})


def ask(entries, method, path, token="", by=None, headers=WRITES, **more):
    """One request to an application whose jobs `by` draws, by default the model itself."""

    async def drawn(asked):
        entry = entries[asked.model]
        (one,) = await asyncio.to_thread(direct.draw, entry, entry.load(), [asked], Limits())
        return one._replace(replica="r1")

    async def one():
        app = direct.make_app(entries, Limits(), Door(token, b"secret", LOOPBACK, False, 80), by or drawn)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers, **more)

    return asyncio.run(one())


def shade(png):
    with Image.open(io.BytesIO(png)) as drawn:
        return int(np.asarray(drawn)[0, 0, 0])


def test_jobs_of_one_program_are_drawn_together_and_others_one_after_the_other(entries, brush):
    jobs = [job(seed=1), job(seed=2, steps=5), job(seed=3, captions=["a dot"]), job(seed=4), job(seed=5, num=3)]
    drawn = direct.draw(entries["fake"], entries["fake"].load(), jobs, Limits())
    assert [[shade(file) for file in one.files] for one in drawn] == [[1], [2], [3], [4], [5, 6, 7]]
    assert brush.batches == [3, 1, 3]


def test_one_that_fails_takes_nobody_along(entries, brush, capfd):
    brush.poison = 2
    drawn = direct.draw(entries["fake"], entries["fake"].load(), [job(seed=seed) for seed in (1, 2, 3)], Limits())
    assert [one.error for one in drawn] == ["", "the server failed", ""]
    assert "poison" in capfd.readouterr().err


def test_a_request_is_answered_with_its_pictures(entries):
    reply = ask(entries, "POST", "/api/models/fake/draw", json={"captions": ["a ring"], "num": 2, "seed": 7})
    found = reply.json()
    assert (reply.status_code, found["replica"], found["request"]["steps"]) == (200, "r1", None)
    files = [base64.b64decode(one) for one in found["pictures"]]
    assert [shade(file) for file in files] == [7, 8]
    with Image.open(io.BytesIO(files[1])) as drawn:
        assert json.loads(drawn.info[ABOUT])["request"]["seed"] == 7


def test_openai_has_pictures_in_the_answer_too(entries):
    body = {"model": "fake", "prompt": "a ring", "n": 2, "size": "256x256", "seed": 9}
    reply = ask(entries, "POST", "/v1/images/generations", headers={}, json=body)
    assert [one["seed"] for one in reply.json()["data"]] == [9, 9]
    with Image.open(io.BytesIO(base64.b64decode(reply.json()["data"][0]["b64_json"]))) as drawn:
        assert drawn.size == (256, 256)
    assert [one["id"] for one in ask(entries, "GET", "/v1/models").json()["data"]] == ["fake"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/api/models/fake/draw", {"captions": ["a"], "num": 0}, "num"),
        ("/api/models/fake/draw", {"captions": ["a"], "num": 10**6}, "num"),
        ("/api/models/fake/draw", {"captions": ["a"], "data": "/etc"}, "data"),
        ("/api/models/etc/draw", {"captions": ["a"]}, "model"),
        ("/api/models/fake/vary", {"image": "/etc/passwd"}, "verb"),
        ("/v1/images/generations", {"prompt": "a", "response_format": "url"}, "response_format"),
        ("/v1/images/generations", {"prompt": "a", "stream": True}, "stream"),
        ("/v1/images/generations", {"prompt": "a", "n": 2, "num": 2}, "num"),
        ("/v1/images/generations", {"prompt": "a" * 2000}, "prompt"),
    ],
)
def test_what_cannot_be_is_one_line_and_reaches_nobody(entries, brush, path, body, param):
    reply = ask(entries, "POST", path, json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert "\n" not in error["message"]
    assert not brush.done


def test_the_gate_is_that_of_the_studio(entries):
    path, body = "/api/models/fake/draw", {"captions": ["a ring"], "num": 1}
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(entries, "POST", path, TOKEN, json=body).status_code == 401
    assert ask(entries, "GET", "/v1/models", TOKEN, headers={"Authorization": "Bearer no"}).status_code == 401
    assert ask(entries, "POST", path, TOKEN, headers=shown, json=body).status_code == 200
    assert ask(entries, "POST", path, headers={}, json=body).status_code == 403
    assert ask(entries, "GET", "/v1/models", headers={"Host": "elsewhere.example"}).status_code == 421
    assert ask(entries, "POST", path, content=b" " * (Limits().json + 1)).status_code == 413


def test_who_asks_hears_that_nobody_can_draw(entries):
    async def busy(asked):
        raise Failure(429, "too many wait", kind="queue_full", headers={"Retry-After": "5"})

    reply = ask(entries, "POST", "/api/models/fake/draw", by=busy, json={"captions": ["a"]})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")


def test_a_model_that_draws_from_pictures_alone_is_refused(brush):
    entry = entry_of(brush)
    only = entry._replace(requests={Vary: entry.requests[Vary]})
    with pytest.raises(ValueError, match="fake draws from pictures alone"):
        direct.without_pictures({"fake": only})
