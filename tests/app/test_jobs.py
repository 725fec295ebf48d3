"""From a request to pictures: what is asked is checked, drawn, kept, told and drawn again."""

import io
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from studio_toy import Brush, entry_of, served

from flaxgen import bounded_json
from flaxgen.app import worker
from flaxgen.app.limits import Limits


def asked(**request):
    return {"model": "fake", "verb": "draw", "request": {"captions": ["a ring"], "num": 2, **request}}


def png(size=(20, 10), colour=(9, 8, 7), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def upload(client, content=None, kind="image/png"):
    return client.post("/api/pictures", content=content or png(), headers={"Content-Type": kind})


def test_a_job_is_drawn_kept_and_told(here, client):
    posted = client.post("/api/jobs", json=asked(seed=5))
    assert posted.status_code == 201
    job = here.finish(client, posted.json()["id"])
    assert (job["state"], job["step"], job["steps"], job["error"]) == ("done", 200, 200, None)
    assert job["request"]["captions"] == ["a ring"]
    assert "data" not in job["request"]
    assert job["created"] <= job["started"] <= job["finished"]
    assert [len(id) for id in job["pictures"]] == [22, 22]
    for place, id in enumerate(job["pictures"]):
        found = client.get(f"/api/pictures/{id}")
        assert found.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(found.content)) as picture:
            assert np.asarray(picture)[0, 0].tolist() == [5 + place] * 3
            about = json.loads(picture.text["flaxgen"])
        assert (about["model"], about["picture"], about["of"], about["request"]["seed"]) == ("fake", place, 2, 5)
        info = client.get(f"/api/pictures/{id}/info").json()
        assert (info["index"], info["width"], info["height"], info["kind"]) == (place, 16, 12, "drawn")
        with Image.open(io.BytesIO(client.get(f"/api/pictures/{id}/thumbnail").content)) as small:
            assert small.size == (16, 12)
    read = client.post("/api/read", content=found.content, headers={"Content-Type": "image/png"}).json()
    assert (read["model"], read["verb"], read["request"]["seed"]) == ("fake", "draw", 5)
    again = client.post("/api/jobs", json={**read}).json()
    assert here.finish(client, again["id"])["state"] == "done"
    assert here.brush.done[0] == here.brush.done[1]


def test_a_route_for_each_verb_says_the_same(here, client):
    posted = client.post("/api/models/fake/draw", json={"captions": ["a ring"], "num": 1})
    assert posted.status_code == 201
    assert here.finish(client, posted.json()["id"])["state"] == "done"
    openapi = client.get("/openapi.json").json()
    body = openapi["paths"]["/api/models/fake/draw"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == client.get("/api/models/fake/verbs").json()["draw"]["schema"]
    assert body["required"] == ["captions"]
    assert body["properties"]["num"]["maximum"] == 64
    assert "data" not in body["properties"]
    assert body["properties"]["steps"]["x-advanced"]


WRONG = [
    (asked(num=0), "num", "num=0: expected 1 or more"),
    (asked(num=65), "num", "expected at most 64"),
    (asked(num=64, candidates=16), "num", "is 1024 pictures: expected at most 256"),
    (asked(steps=251), "steps", "at most 250"),
    (asked(num=64, candidates=4, steps=250), "steps", "expected at most 25600 steps in all"),
    (asked(seed=2**32), "seed", "expected at most 4294967295"),
    (asked(seed=10**90), "seed", "expected at most"),
    (asked(seed=1.5), "seed", "expected a whole number"),
    (asked(seed=True), "seed", "expected a whole number"),
    (asked(seed=[1]), "seed", "expected one value"),
    (asked(captions=[]), "captions", "draw needs captions"),
    (asked(captions=["x" * 1001]), "captions", "expected at most 1000"),
    (asked(captions=["x"] * 17), "captions", "expected at most 16"),
    (asked(captions=[{"a": 1}]), "captions", "expected a plain value"),
    (asked(data="/etc"), "data", "draw has no 'data' here"),
    (asked(colour=1), "colour", "draw has no 'colour' here"),
    ({**asked(), "verb": "sing"}, "verb", "fake has no 'sing': expected draw, vary, inpaint"),
    ({**asked(), "model": "../fake"}, "model", "there is no such model: expected fake"),
    ({**asked(), "parent": "a" * 22}, "parent", "there is no such picture"),
    ({**asked(), "parent": "../../etc/passwd"}, "parent", "string should match"),
    ({**asked(), "path": "/etc"}, "path", "extra inputs are not permitted"),
    ({"model": "fake", "verb": "vary", "request": {}}, "image", "vary needs image"),
    ({"model": "fake", "verb": "vary", "request": {"image": None}}, "image", "vary needs image"),
    ({"model": "fake", "verb": "vary", "request": {"image": "/etc/hosts"}}, "image", "there is no such picture"),
    ({"model": "fake", "verb": "vary", "request": {"image": 7}}, "image", "expected the id of a picture"),
    ({"model": "fake", "verb": "vary", "request": {"image": ["a" * 22] * 2}}, "image", "expected one value"),
]


def test_what_cannot_be_is_refused_by_the_name_of_its_field(client):
    for body, param, message in WRONG:
        reply = client.post("/api/jobs", json=body)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, param), (body, error)
        assert message in error["message"]
        assert set(error) == {"message", "type", "param", "code"}
    assert client.get("/api/jobs").json() == {"jobs": []}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b'{"model": NaN}', b"\xff", b"1" * 5_000, b'"\\ud800"', b"null", b"[]",
             b'{"model":"fake","verb":"draw","request":{"captions":["\\ud800"]}}',
             b'{"model":"fake","verb":"draw","request":{"captions":["a"],"\\ud800":1}}',
             b'{"model":"fake","verb":"draw","request":{"captions":["a"],"num":1e999}}',
             b'{"model":"\\ud800","verb":"draw","request":{}}'],
)  # fmt: skip
def test_bodies_that_are_no_json_of_ours_are_refused(body, client):
    reply = client.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert bounded_json.loads(reply.content)["error"]["type"] == "invalid_request"


def test_pictures_and_masks_go_in_by_their_ids(here, client):
    image, mask = upload(client).json(), upload(client, png(colour=255, mode="L")).json()
    assert (image["width"], image["height"], len(image["sha"])) == (20, 10, 64)
    request = {"image": image["id"], "mask": mask["id"], "caption": "a dot", "num": 1}
    posted = client.post("/api/jobs", json={"model": "fake", "verb": "inpaint", "request": request}).json()
    assert posted["parent"] == image["id"], "what it begins with"
    job = here.finish(client, posted["id"])
    (done,) = here.brush.done
    assert done.image.pixels[0, 0].tolist() == [9, 8, 7]
    assert done.mask.pixels.shape == (10, 20, 1)
    assert job["request"]["mask"] == mask["id"]
    (drawn,) = job["pictures"]
    about = client.get(f"/api/pictures/{drawn}").content
    assert str(here.studio.shelf.folder).encode() not in about, "no path leaves the machine"
    read = client.post("/api/read", content=about, headers={"Content-Type": "image/png"}).json()
    assert read["request"]["image"] == image["id"]
    history = client.get(f"/api/pictures/{drawn}/history").json()
    assert [one["id"] for one in history["ancestors"]] == [image["id"]]
    children = client.get(f"/api/pictures/{image['id']}/history").json()["children"]
    assert [one["id"] for one in children] == [drawn]


def test_a_picture_that_is_gone_when_its_turn_comes_is_said(here, client):
    here.brush.go.clear()
    client.post("/api/jobs", json=asked())
    image = upload(client).json()["id"]
    waiting = client.post("/api/jobs", json={"model": "fake", "verb": "vary", "request": {"image": image}}).json()
    assert client.delete(f"/api/pictures/{image}").status_code == 204
    here.brush.go.set()
    job = here.finish(client, waiting["id"])
    assert (job["state"], job["error"]) == ("failed", "image: there is no such picture")


def test_the_gallery_is_searched_paged_marked_and_emptied(here, client):
    ids = []
    for seed, caption in enumerate(["a red ring", "a blue dot", "100% red_dot"]):
        job = client.post("/api/jobs", json=asked(captions=[caption], seed=seed, num=1)).json()
        ids += here.finish(client, job["id"])["pictures"]

    def found(query=""):
        return [one["id"] for one in client.get(f"/api/gallery?{query}").json()["pictures"]]

    assert found() == ids[::-1]
    assert found("search=red") == [ids[2], ids[0]]
    assert found("search=ring+red") == [ids[0]]
    assert found("search=100%25") == [ids[2]]
    assert found("search=d_d") == [ids[2]]
    assert found("verb=vary") == []
    first = client.get("/api/gallery?limit=2").json()
    assert [one["id"] for one in first["pictures"]] == ids[:0:-1]
    assert found(f"limit=2&before={first['next']}") == ids[:1]
    assert client.get(f"/api/gallery?before={first['next']}").json()["next"] is None
    marked = client.post(f"/api/pictures/{ids[1]}/favourite", json={"favourite": True}).json()
    assert marked["favourite"]
    assert found("favourite=1") == [ids[1]]
    assert client.delete(f"/api/pictures/{ids[1]}").status_code == 204
    assert found() == [ids[2], ids[0]]
    assert client.get(f"/api/pictures/{ids[1]}").status_code == 404
    assert len(list((here.studio.shelf.folder / "pictures").iterdir())) == 2


def test_a_file_that_two_pictures_share_lasts_as_long_as_one(here, client):
    one, other = upload(client).json(), upload(client).json()
    assert one["sha"] == other["sha"]
    client.delete(f"/api/pictures/{one['id']}")
    assert client.get(f"/api/pictures/{other['id']}").status_code == 200
    client.delete(f"/api/pictures/{other['id']}")
    assert list((here.studio.shelf.folder / "pictures").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such thing in /home/me/model: broken"), "no such thing in a file: broken"),
        (OSError(28, "No space left on device", "/home/me/x"), "No space left on device"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GB"), "out of memory: ask for fewer pictures"),
        (RuntimeError("secret"), "the server failed"),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_is_drawn(error, said, here, client, capfd):
    here.brush.error = error
    failed = here.finish(client, client.post("/api/jobs", json=asked()).json()["id"])
    assert (failed["state"], failed["error"]) == ("failed", said)
    here.brush.error = None
    assert here.finish(client, client.post("/api/jobs", json=asked()).json()["id"])["state"] == "done"


def test_queued_and_running_jobs_are_cancelled(here, client):
    here.brush.go.clear()
    running = client.post("/api/jobs", json=asked()).json()["id"]
    assert here.brush.begun.wait(10)
    queued = [client.post("/api/jobs", json=asked()).json() for _ in range(2)]
    assert [job["position"] for job in queued] == [0, 1]
    assert client.post(f"/api/jobs/{queued[0]['id']}/cancel").json()["state"] == "cancelled"
    assert client.get(f"/api/jobs/{queued[1]['id']}").json()["position"] == 0
    assert client.post(f"/api/jobs/{running}/cancel").status_code == 200
    assert here.finish(client, running)["state"] == "cancelled"
    here.brush.go.set()
    done = here.finish(client, queued[1]["id"])
    assert (done["state"], len(here.brush.done)) == ("done", 1)
    assert client.post(f"/api/jobs/{done['id']}/cancel").json() == done
    states = [job["state"] for job in client.get("/api/jobs").json()["jobs"]]
    assert states == ["done", "cancelled", "cancelled"]
    assert [job["id"] for job in client.get("/api/jobs?state=done").json()["jobs"]] == [done["id"]]
    before = client.get(f"/api/jobs?before={queued[1]['id']}&limit=1").json()["jobs"]
    assert [job["id"] for job in before] == [queued[0]["id"]]


def test_events_begin_with_what_is_unfinished_and_are_of_ones_own(here, client):
    here.brush.go.clear()
    mine = client.post("/api/jobs", json=asked()).json()["id"]
    with here.client(**{"X-Flaxgen-User": "other"}) as other:
        theirs = other.post("/api/jobs", json=asked()).json()["id"]
        seen = []
        with client.stream("GET", "/api/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line == ": hello":
                    here.brush.go.set()
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    if seen[-1].get("state") == "done":
                        break
        here.finish(other, theirs)
    assert {event["id"] for event in seen} == {mine}
    assert seen[0]["state"] in ("queued", "running")
    assert len(seen[-1]["pictures"]) == 2


def test_users_take_turns_and_have_limits(tmp_path):
    with served(tmp_path / "studio", limits=Limits()._replace(waiting=3)) as here, here.client() as greedy:
        with here.client(**{"X-Flaxgen-User": "modest"}) as modest:
            here.brush.go.clear()
            greedy.post("/api/jobs", json=asked(seed=1))
            assert here.brush.begun.wait(10)
            for seed in (2, 3, 4):
                assert greedy.post("/api/jobs", json=asked(seed=seed)).status_code == 201
            full = greedy.post("/api/jobs", json=asked(seed=5))
            assert (full.status_code, full.headers["retry-after"]) == (429, "5")
            last = modest.post("/api/jobs", json=asked(seed=10)).json()
            assert last["position"] == 1, "one of each before the second of one"
            here.brush.go.set()
            here.finish(modest, last["id"])
            for job in greedy.get("/api/jobs").json()["jobs"]:
                here.finish(greedy, job["id"])
        assert [request.seed for request in here.brush.done] == [1, 2, 10, 3, 4]


def test_bytes_that_are_kept_have_a_limit(tmp_path):
    with served(tmp_path / "studio", limits=Limits()._replace(stored=50)) as here, here.client() as client:
        first = upload(client)
        assert first.status_code == 201
        second = upload(client)
        assert (second.status_code, second.json()["error"]["type"]) == (403, "quota")
        assert client.post("/api/jobs", json=asked()).status_code == 403
        client.delete(f"/api/pictures/{first.json()['id']}")
        assert upload(client).status_code == 201


def test_what_was_unfinished_is_drawn_by_the_next_server(tmp_path):
    with served(tmp_path / "studio") as here, here.client() as client:
        here.brush.go.clear()
        ids = [client.post("/api/jobs", json=asked(seed=seed)).json()["id"] for seed in (1, 2)]
        gone = client.post("/api/jobs", json=asked(seed=3)).json()["id"]
        assert here.brush.begun.wait(10)
        here.studio.store._change(("UPDATE jobs SET model = 'old' WHERE id = ?", (gone,)))
    assert not here.brush.done
    with served(tmp_path / "studio") as here, here.client() as client:
        assert [here.finish(client, id)["state"] for id in ids] == ["done", "done"]
        assert [request.seed for request in here.brush.done] == [1, 2]
        lost = here.finish(client, gone)
        assert (lost["state"], lost["error"]) == ("failed", "the model old is gone")


def test_two_studios_do_not_share_a_folder(tmp_path):
    first, second = served(tmp_path / "studio"), served(tmp_path / "studio")
    with first, pytest.raises(ValueError, match="another studio works in"):
        second.__enter__()


def test_models_are_loaded_when_they_are_asked_and_dropped_by_memory(monkeypatch):
    loads = []
    entries = {name: entry_of(Brush(), name, lambda name=name: loads.append(name) or name) for name in "abc"}
    monkeypatch.setattr(worker, "bytes_of", lambda model: 10)
    models = worker.Models(entries, most=25)
    for name in "abacab":
        models.get(name)
    assert loads == ["a", "b", "c", "b"]
    assert [name in models for name in "abc"] == [True, True, False]
