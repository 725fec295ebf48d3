"""Jobs of several users in one batch: what each gets, sees and may end is its own."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from studio_toy import served

import flaxgen
from flaxgen.app.line import Line
from flaxgen.family.drawing import watched
from flaxgen.family.together import together


def asked(**request):
    return {"model": "fake", "verb": "draw", "request": {"captions": ["a ring"], "num": 1, **request}}


@pytest.fixture
def crowd(here):
    """Clients of four users, and the ids of a job that is drawn and one of each user that waits behind it."""
    clients = [here.client(**{"X-Flaxgen-User": name}) for name in ("ann", "ben", "cy", "dan")]
    yield clients
    here.brush.go.set()
    here.brush.held = None
    for client in clients:
        client.close()


def line_up(here, clients, *requests):
    """Holds the device with a job of the first user, and lines up a request of each."""
    here.brush.go.clear()
    first = post(clients[0], seed=200)
    assert here.brush.begun.wait(10)
    return [first, *(post(client, **request) for client, request in zip(clients, requests, strict=False))]


def post(client, **request):
    reply = client.post("/api/jobs", json=asked(**request))
    assert reply.status_code == 201, reply.text
    return reply.json()["id"]


def shade(client, picture):
    with Image.open(io.BytesIO(client.get(f"/api/pictures/{picture}").content)) as drawn:
        return int(np.asarray(drawn)[0, 0, 0])


def test_jobs_of_several_users_share_a_batch_and_each_has_its_own(here, crowd):
    jobs = line_up(here, crowd, *({"seed": seed, "captions": [str(seed)]} for seed in (10, 20, 30, 40)))
    here.brush.go.set()
    for client, job, seed in zip(crowd, jobs[1:], (10, 20, 30, 40), strict=True):
        done = here.finish(client, job)
        assert (done["state"], [shade(client, id) for id in done["pictures"]]) == ("done", [seed])
        for other in crowd:
            assert (other.get(f"/api/jobs/{job}").status_code == 200) == (other is client)
    assert here.brush.batches == [1, 4]


def test_only_jobs_of_one_program_are_joined(here, crowd):
    jobs = line_up(
        here, crowd, {"seed": 1, "steps": 5}, {"seed": 2, "steps": 6}, {"seed": 3, "num": 2}, {"seed": 9, "steps": 5}
    )
    here.brush.go.set()
    for client, job in zip(crowd, jobs[1:], strict=True):
        assert here.finish(client, job)["state"] == "done"
    assert here.brush.batches == [1, 2, 1, 2]
    assert [request.seed for request in here.brush.done] == [200, 1, 9, 2, 3]


def test_one_that_is_cancelled_leaves_the_batch_at_once(here, crowd):
    here.brush.held = 20
    jobs = line_up(here, crowd, *({"seed": seed} for seed in (10, 20, 30, 40)))
    here.brush.go.set()
    assert here.brush.walking.wait(10)
    assert crowd[2].post(f"/api/jobs/{jobs[1]}/cancel").status_code == 404, "another user's"
    crowd[1].post(f"/api/jobs/{jobs[2]}/cancel")
    assert here.finish(crowd[1], jobs[2])["state"] == "cancelled"
    assert crowd[0].get(f"/api/jobs/{jobs[1]}").json()["state"] == "running"
    here.brush.held = None
    states = [here.finish(client, job)["state"] for client, job in zip(crowd, jobs[1:], strict=True)]
    assert states == ["done", "cancelled", "done", "done"]


def test_one_that_fails_is_drawn_again_alone_and_takes_nobody_along(here, crowd, capfd):
    here.brush.poison = 20
    jobs = line_up(here, crowd, *({"seed": seed} for seed in (10, 20, 30, 40)))
    here.brush.go.set()
    states = [here.finish(client, job)["state"] for client, job in zip(crowd, jobs[1:], strict=True)]
    assert states == ["done", "failed", "done", "done"]
    assert here.brush.batches == [1, 4, 1, 1, 1, 1]


def test_a_job_that_was_begun_before_is_drawn_alone(tmp_path):
    with served(tmp_path / "studio") as here, here.client() as one, here.client(**{"X-Flaxgen-User": "b"}) as other:
        jobs = line_up(here, [one, other], {"seed": 1}, {"seed": 2})
        here.studio.store._change(("UPDATE jobs SET tries = 1 WHERE id = ?", (jobs[2],)))
        here.brush.go.set()
        assert [here.finish(client, job)["state"] for client, job in zip((one, other), jobs[1:], strict=True)] == [
            "done"
        ] * 2
        assert here.brush.batches == [1, 1, 1]


def test_who_is_joined_comes_after_all_others():
    line = Line()
    for user, job in (("a", "a1"), ("b", "b1"), ("b", "b2"), ("c", "c1")):
        line.put(user, job)
    assert line.take() == "a1"
    assert line.nexts(except_of="a") == [("b", "b1"), ("c", "c1")]
    assert line.take_next("b", "b1")
    assert not line.take_next("b", "b1")
    assert line.order() == ["c1", "b2"]
    assert not line.take_next("c", "b2")


@pytest.mark.slow
def test_pictures_of_the_model_that_comes_along_keep_their_bytes():
    """Drawn by `flaxgen draw`'s program, in stretches that are watched, and in stretches with two others."""
    model, steps = flaxgen.load("scenes"), []

    def member(seed, caption, watch=None):
        def draw():
            with watched(watch):
                return model.draw([caption], num=3, seed=seed, steps=4)

        return draw

    members = [(1, "a red circle"), (2, "one big yellow triangle"), (3, "a picture of a blue cross")]
    alone = [member(*one)() for one in members]
    joined = together([member(*one, lambda step, count, x0: steps.append(len(x0))) for one in members])
    for mine, theirs in zip(joined, alone, strict=True):
        np.testing.assert_array_equal(mine.images, theirs.images)
        assert mine.scores == theirs.scores
    assert set(steps) == {1, 2, 3}, "nine rows in three batches, in parts"
