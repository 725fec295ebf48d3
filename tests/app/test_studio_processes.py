"""The command itself, with the model that comes along: the bytes of `flaxgen draw`, previews, and kill -9."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

pytestmark = pytest.mark.slow
WRITES = {"X-Flaxgen": "1"}
KILLS = 20
CAPTION = "a red circle above a blue square"


class Process:
    """`flaxgen studio` of its own."""

    def __init__(self, folder, cache):
        environment = {**os.environ, "FLAXGEN_CACHE": str(cache)}
        command = [sys.executable, "-m", "flaxgen", "studio", "scenes", "--port", "0", "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        line = self.process.stdout.readline()
        self.client = httpx.Client(base_url=line.partition(" at ")[2].split()[0], headers=WRITES, timeout=30)

    def ask(self, verb="draw", **request):
        reply = self.client.post("/api/jobs", json={"model": "scenes", "verb": verb, "request": request})
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    def finish(self, job, seconds=300):
        for _ in range(seconds * 10):
            found = self.client.get(f"/api/jobs/{job}").json()
            if found["state"] not in ("queued", "running"):
                return found
            time.sleep(0.1)
        raise AssertionError(found)

    def end(self, number):
        self.client.close()
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code


def test_pictures_are_those_of_the_command(tmp_path):
    """The same pixels and the same metadata, but for where the model lies."""
    cache = tmp_path / "cache"
    running = Process(tmp_path / "studio", cache)
    try:
        job = running.ask(captions=[CAPTION], num=2, seed=3)
        events = []
        with running.client.stream("GET", "/api/events", timeout=300) as stream:
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    events.append(line)
                if line.startswith("data: ") and json.loads(line[6:]).get("state") == "done":
                    break
        assert events.count("event: preview") >= 2
        ours = [running.client.get(f"/api/pictures/{id}").content for id in running.finish(job)["pictures"]]
    finally:
        running.end(signal.SIGTERM)
    command = [
        sys.executable,
        "-m",
        "flaxgen",
        "draw",
        CAPTION,
        "--num",
        "2",
        "--seed",
        "3",
        "--out",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, check=True, env={**os.environ, "FLAXGEN_CACHE": str(cache)}, capture_output=True)
    for content, path in zip(ours, sorted((tmp_path / "out").iterdir()), strict=True):
        with Image.open(io.BytesIO(content)) as mine, Image.open(path) as theirs:
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
            about, other = (json.loads(picture.text["flaxgen"]) for picture in (mine, theirs))
        assert {**about, "model": ""} == {**other, "model": ""}


def test_a_server_that_is_killed_loses_nothing(tmp_path):
    """Killed at random moments, with jobs waiting and running; what was answered is there after the next start."""
    chance, asked, kept = random.Random(0), [], {}
    for _ in range(KILLS):
        running = Process(tmp_path / "studio", tmp_path / "cache")
        for id, content in kept.items():
            assert running.client.get(f"/api/pictures/{id}").content == content
        known = {job["id"] for job in running.client.get("/api/jobs?limit=200").json()["jobs"]}
        assert set(asked) <= known
        asked.append(running.ask(captions=[CAPTION], num=1, steps=2, seed=len(asked)))
        time.sleep(chance.uniform(0, 4))
        for one in running.client.get("/api/gallery").json()["pictures"]:
            kept[one["id"]] = running.client.get(f"/api/pictures/{one['id']}").content
        running.end(signal.SIGKILL)
    running = Process(tmp_path / "studio", tmp_path / "cache")
    try:
        states = {job: running.finish(job) for job in asked}
        assert {state["state"] for state in states.values()} <= {"done", "failed"}
        assert all("killed 3 times" in state["error"] for state in states.values() if state["state"] == "failed")
        for state in states.values():
            for id in state["pictures"]:
                with Image.open(io.BytesIO(running.client.get(f"/api/pictures/{id}").content)) as picture:
                    picture.load()
        names = [path.name for path in (tmp_path / "studio" / "pictures").iterdir()]
        assert len(names) == len(set(names))
        assert not [name for name in names if name.endswith(".part")]
    finally:
        running.end(signal.SIGTERM)


def test_an_interrupted_server_ends_in_seconds_and_the_job_goes_on(tmp_path):
    running = Process(tmp_path / "studio", tmp_path / "cache")
    job = running.ask(captions=[CAPTION], num=1, steps=2)
    time.sleep(1)
    start = time.monotonic()
    running.end(signal.SIGINT)
    assert time.monotonic() - start < 15
    running = Process(tmp_path / "studio", tmp_path / "cache")
    try:
        assert running.finish(job)["state"] == "done"
    finally:
        running.end(signal.SIGTERM)
