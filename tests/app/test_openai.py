"""OpenAI's images API over real HTTP: what its clients send, what they read, and what they are refused."""

import base64
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

import httpx
from studio_toy import Brush, entry_of, served

from flaxgen.app import links, waiting
from flaxgen.app.limits import Limits


def png(size=(16, 12), colour=(9, 8, 7), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def holed(size=(16, 12)):
    """A picture that is transparent in its left half."""
    pixels = np.full((size[1], size[0], 4), 255, np.uint8)
    pixels[:, : size[0] // 2, 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def opened(content):
    return Image.open(io.BytesIO(content))


def decoded(entry):
    return opened(base64.b64decode(entry["b64_json"]))


@pytest.fixture
def plain(here):
    """A program that knows nothing of flaxgen's headers."""
    with httpx.Client(base_url=here.url, timeout=20) as client:
        yield client


def generate(client, **more):
    return client.post("/v1/images/generations", json={"prompt": "a ring", "response_format": "b64_json", **more})


def test_models_are_listed_as_openai_lists_its_own(plain):
    listed = plain.get("/v1/models").json()
    assert (listed["object"], [one["id"] for one in listed["data"]]) == ("list", ["fake"])
    assert plain.get("/v1/models/fake").json() == listed["data"][0]
    missing = plain.get("/v1/models/dall-e-2")
    assert missing.status_code == 404
    assert set(missing.json()["error"]) == {"message", "type", "param", "code"}


def test_a_prompt_is_drawn_with_fields_of_the_models_own(here, plain):
    reply = generate(plain, n=2, seed=5, steps=3, user="u-1", quality="standard", model="fake").json()
    assert [entry["seed"] for entry in reply["data"]] == [5, 5]
    assert [np.asarray(decoded(entry))[0, 0, 0] for entry in reply["data"]] == [5, 6]
    assert abs(reply["created"] - time.time()) < 60
    (request,) = here.brush.done
    assert (request.captions, request.num, request.steps) == (("a ring",), 2, 3)


def test_without_a_seed_each_picture_is_another(here, plain):
    seeds = [generate(plain).json()["data"][0]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert [request.seed for request in here.brush.done] == seeds


def test_pictures_are_brought_to_the_sizes_that_clients_know(here, plain):
    own = decoded(generate(plain, size="auto").json()["data"][0])
    large = decoded(generate(plain, size="512x512").json()["data"][0])
    assert (own.size, large.size) == ((16, 12), (512, 512))
    assert json.loads(large.text["flaxgen"])["model"] == "fake"
    refused = generate(plain, size="1024x1792")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "size")
    assert "256x256, 512x512, 1024x1024" in refused.json()["error"]["message"]


def test_a_link_shows_the_picture_to_whoever_has_it_until_it_ends(tmp_path):
    with served(tmp_path / "s", token="t" * 16) as here, httpx.Client(base_url=here.url, timeout=20) as client:
        client.headers["Authorization"] = f"Bearer {'t' * 16}"
        (entry,) = generate(client, response_format="url", size="256x256").json()["data"]
        url = entry["url"]
        assert url.startswith(f"{here.url}/v1/images/files/")
        shown = httpx.get(url)
        assert (shown.headers["content-type"], opened(shown.content).size) == ("image/png", (256, 256))
        name = url.rpartition("/")[2]
        linked = links.read_link(here.studio.door, name)
        (id,) = here.studio.store.jobs("program:api", None, None, 1)[0].pictures
        assert linked == (id, (256, 256))
        later = time.time() + links.LASTS
        assert links.read_link(here.studio.door, name, later - 30) == linked
        assert links.read_link(here.studio.door, name, later + 30) is None
        longer = name.replace(".256x256.", ".512x512.")
        assert httpx.get(url.replace(name, longer)).status_code == 404
        assert httpx.get(url, headers={"Origin": "https://evil.example"}).status_code == 403
        assert httpx.get(f"{here.url}/v1/models").status_code == 401
        client.delete(f"/api/pictures/{id}", headers={"X-Flaxgen": "1"})
        assert httpx.get(url).status_code == 404


def test_an_edit_draws_anew_what_is_transparent(here, plain):
    files = {"image": ("a.png", png()), "mask": ("m.png", holed(), "application/octet-stream")}
    reply = plain.post(
        "/v1/images/edits", data={"prompt": "a dot", "n": "2", "seed": "7", "whole": "true"}, files=files
    )
    assert reply.status_code == 200, reply.text
    assert [entry["seed"] for entry in reply.json()["data"]] == [7, 7]
    own = plain.post("/v1/images/edits", data={"prompt": "a dot"}, files={"image[]": ("a.png", holed())})
    assert own.status_code == 200, own.text
    for request in here.brush.done:
        assert (request.mask.pixels[:, :8] == 255).all()
        assert (request.mask.pixels[:, 8:] == 0).all()
        assert request.caption == "a dot"
    assert [request.whole for request in here.brush.done] == [True, False]


def test_a_variation_is_a_job_of_the_callers_own(here, plain):
    reply = plain.post("/v1/images/variations", data={"n": "3"}, files={"image": ("a.png", png())},
                       headers={"X-Flaxgen-User": "ann"})  # fmt: skip
    assert len(reply.json()["data"]) == 3
    jobs = {user: plain.get("/api/jobs", headers={"X-Flaxgen-User": user}).json()["jobs"] for user in ("ann", "bob")}
    assert [job["verb"] for job in jobs["ann"]] == ["vary"]
    assert jobs["bob"] == []


WRONG = [
    ({"model": "dall-e-3"}, 404, "model", "there is no such model: expected fake"),
    ({"n": 0}, 400, "n", "greater than or equal to 1"),
    ({"n": "2"}, 400, "n", "valid integer"),
    ({"prompt": "x" * 1001}, 400, "prompt", "at most 1000"),
    ({"prompt": None}, 400, "prompt", "valid string"),
    ({"size": "big"}, 400, "size", "expected WIDTHxHEIGHT"),
    ({"response_format": "file"}, 400, "response_format", "'url' or 'b64_json'"),
    ({"nonsense": 1}, 400, "nonsense", "draw has no 'nonsense' here"),
    ({"num": 3}, 400, "num", "num: say it by n"),
    ({"steps": 0}, 400, "steps", "expected 1 or more"),
    ({"partial_images": 4}, 400, "partial_images", "less than or equal to 3"),
]


@pytest.mark.parametrize(("more", "status", "param", "said"), WRONG, ids=lambda value: str(value)[:20])
def test_what_cannot_be_is_said_as_openai_says_it(shared, more, status, param, said):
    refused = generate(shared, **more)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
    assert said in refused.json()["error"]["message"]


FORMS = [
    ({}, {"image": png()}, "prompt"),
    ({"prompt": "x"}, {}, "image"),
    ({"prompt": "x"}, {"image": png()}, "mask"),
    ({"prompt": "x"}, {"image": b"<svg/>", "mask": holed()}, "image"),
    ({"prompt": "x"}, {"image": png(), "mask": b"GIF89a"}, "mask"),
    ({"prompt": "x"}, {"image": png(), "hint": png()}, "hint"),
    ({"prompt": "x", "n": "11"}, {"image": holed()}, "n"),
    ({"prompt": "x", "feather": "soft"}, {"image": holed()}, "feather"),
]


@pytest.mark.parametrize(("data", "files", "param"), FORMS, ids=str)
def test_a_form_that_cannot_be_leaves_nothing(shared, data, files, param):
    refused = shared.post("/v1/images/edits", data=data, files={name: (name, file) for name, file in files.items()})
    assert (refused.status_code, refused.json()["error"]["param"]) in ((400, param), (415, None))
    assert shared.get("/api/gallery").json()["pictures"] == []


def test_two_images_are_one_too_many(shared):
    files = [("image[]", ("a.png", holed())), ("image[]", ("b.png", holed()))]
    refused = shared.post("/v1/images/edits", data={"prompt": "x"}, files=files)
    assert refused.json()["error"]["message"] == "image is there twice: expected one"
    assert shared.post("/v1/images/edits", json={"prompt": "x"}).status_code == 415


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A client of one studio for what draws nothing."""
    with (
        served(tmp_path_factory.mktemp("shared") / "s") as here,
        httpx.Client(base_url=here.url, timeout=20) as client,
    ):
        yield client


def test_a_full_line_is_told_with_the_time_to_wait(tmp_path):
    with served(tmp_path / "s", limits=Limits(waiting=1)) as here, here.client() as client:
        here.brush.go.clear()
        body = {"model": "fake", "verb": "draw", "request": {"captions": ["x"], "num": 1}}
        client.post("/api/jobs", json=body)
        assert here.brush.begun.wait(10)
        client.post("/api/jobs", json=body)
        full = generate(client)
        assert (full.status_code, full.headers["retry-after"]) == (429, "5")
        form = client.post("/v1/images/variations", files={"image": ("a.png", png())})
        assert form.status_code == 429
        assert client.get("/api/gallery").json()["pictures"] == []  # nor the picture that was sent
        here.brush.go.set()


def test_a_job_that_fails_is_not_asked_again(here, plain):
    here.brush.error = ValueError("the paint is dry")
    failed = generate(plain)
    assert (failed.status_code, failed.headers["x-should-retry"]) == (500, "false")
    assert failed.json()["error"]["message"] == "the paint is dry"
    streamed = generate(plain, stream=True)
    assert [name for name, _ in events(streamed.text)] == ["error"]


def leave(here, client):
    """Waits half a second for an answer."""
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/images/generations", json={"prompt": "x"}, timeout=0.5)


def leave_stream(here, client):
    """Reads no more once the job has begun."""
    with client.stream("POST", "/v1/images/generations", json={"prompt": "x", "stream": True}):
        assert here.brush.begun.wait(10)


@pytest.mark.parametrize("goes", [leave, leave_stream])
def test_a_client_that_leaves_takes_its_job_along(here, plain, monkeypatch, goes):
    monkeypatch.setattr(waiting, "LOOK", 0.05)
    here.brush.go.clear()
    goes(here, plain)
    (job,) = plain.get("/api/jobs").json()["jobs"]
    assert here.finish(plain, job["id"])["state"] == "cancelled"


def events(text):
    """Names and data of server-sent events."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


@pytest.mark.parametrize("verb", ["image_generation", "image_edit"])
def test_a_stream_shows_previews_and_then_pictures(here, plain, verb):
    here.brush.go.clear()

    def tell():
        """Previews of ten steps, of which two are wanted."""
        assert here.brush.begun.wait(10)
        (job,) = plain.get("/api/jobs").json()["jobs"]
        while not here.studio.events.hears("program:api"):
            time.sleep(0.01)
        small = base64.b64encode(png((4, 4))).decode()
        for step in range(1, 11):
            preview = {"job": job["id"], "step": step, "steps": 10, "png": small}
            here.studio.events.tell("program:api", "preview", preview)
        here.brush.go.set()

    teller = threading.Thread(target=tell)
    teller.start()
    if verb == "image_generation":
        reply = generate(plain, stream=True, partial_images=2, seed=3)
    else:
        data = {"prompt": "x", "stream": "true", "partial_images": "2", "seed": "3"}
        reply = plain.post("/v1/images/edits", data=data, files={"image": ("a.png", holed())})
    teller.join()
    assert reply.headers["content-type"].startswith("text/event-stream")
    told = events(reply.text)
    assert [name for name, _ in told] == [f"{verb}.partial_image"] * 2 + [f"{verb}.completed"]
    assert all(data["type"] == name for name, data in told)
    assert [data["partial_image_index"] for _, data in told[:2]] == [0, 1]
    assert [data["size"] for _, data in told] == ["4x4", "4x4", "16x12"]
    assert np.asarray(decoded(told[2][1]))[0, 0, 0] == 3
    assert not here.studio.events.hears("program:api")


def test_the_first_model_that_can_is_meant_where_none_is_named(tmp_path):
    brush = Brush()
    able, painter = entry_of(brush, "able"), entry_of(brush, "painter")
    painter = painter._replace(requests={kind: one for kind, one in able.requests.items() if kind.verb == "draw"})
    entries = {"painter": painter, "able": able}
    with served(tmp_path / "s", entries=entries) as here, httpx.Client(base_url=here.url, timeout=20) as client:
        reply = client.post("/v1/images/variations", data={"n": "1"}, files={"image": ("a.png", png())})
        assert reply.status_code == 200, reply.text
        assert client.get("/api/jobs").json()["jobs"][0]["model"] == "able"
        data = {"n": "1", "model": "painter"}
        refused = client.post("/v1/images/variations", data=data, files={"image": ("a.png", png())})
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "painter has no 'vary': expected able"


GATES = [
    ({}, 200),
    ({"Authorization": "Bearer sk-anything"}, 200),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Host": "evil.example"}, 421),
    ({"Content-Type": "text/plain", "Sec-Fetch-Site": "same-origin"}, 403),
    ({"Content-Type": "text/plain", "Cookie": "a=b"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), GATES, ids=str)
def test_the_gate_lets_programs_in_and_pages_of_others_not(shared, headers, status):
    body = json.dumps({"prompt": "a ring", "n": 1}).encode()
    reply = shared.post("/v1/images/generations", content=body, headers={"Content-Type": "application/json", **headers})
    assert reply.status_code == status, reply.text


def test_a_token_is_needed_where_there_is_one(tmp_path):
    with served(tmp_path / "s", token="t" * 16) as here, httpx.Client(base_url=here.url, timeout=20) as client:
        basic = httpx.BasicAuth("ann", "t" * 16)
        for headers in ({}, {"Authorization": "Bearer another"}):
            assert client.post("/v1/images/generations", json={"prompt": "x"}, headers=headers).status_code == 401
        assert client.get("/v1/models", auth=basic).status_code == 401
        assert generate(client, model="fake").status_code == 401
        client.headers["Authorization"] = f"Bearer {'t' * 16}"
        assert generate(client).status_code == 200
