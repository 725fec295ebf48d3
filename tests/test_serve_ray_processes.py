"""scripts/serve_ray.py on a cluster of this machine: two replicas that draw what the library draws, and kill -9."""

import base64
import concurrent.futures
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

import flaxgen
from flaxgen import verbs
from flaxgen.app.catalogue import renamed
from flaxgen.family.pictures import ABOUT

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "serve_ray.py"
TOKEN = "a-token-of-enough-characters"
CAPTION = "a red circle above a blue square"
STEPS = 3
REPLICA = b"ray::ServeReplica:flaxgen:Painter"

needs_ray = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # of eight processes that start on two cores
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for replicas in /proc"),
]


def of_ray(test):
    """A test that starts Ray, and leaves it to another process to import it."""
    for mark in needs_ray:
        test = mark(test)
    return test


class Service:
    """`python scripts/serve_ray.py scenes other` with two replicas, which hold one of the two models at a time."""

    def __init__(self, folder):
        log, other = folder / "log.txt", shutil.copytree(verbs.find("scenes"), folder / "other")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        flags = ["--replicas", "2", "--held", "1", "--port", str(port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "scenes", str(other), *flags], stdout=file, stderr=subprocess.STDOUT,
                env={**os.environ, "FLAXGEN_TOKEN": TOKEN},
            )  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=600)
        wait_for(lambda: "Ctrl+C" in log.read_text() or self.process.poll() is not None, 900)
        assert self.process.poll() is None, log.read_text()

    def draw(self, model="scenes", **request):
        reply = self.client.post(f"/api/models/{model}/draw", json={"captions": [CAPTION], "steps": STEPS, **request})
        if reply.status_code == 503:  # it was given to the replica that dies
            time.sleep(int(reply.headers["retry-after"]))
            return self.draw(model, **request)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def until_both_answer(self):
        """Replies to one request, of both replicas: Ray hears some time after a start which models a replica holds."""
        replies = []

        def both_have():
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                replies.extend(pool.map(lambda _: self.draw(seed=1, num=1), range(4)))
            return len({reply["replica"] for reply in replies}) == 2

        wait_for(both_have, 600)
        return replies

    def replicas(self):
        """The processes of this service that draw."""
        return [pid for pid, (command, _) in processes().items() if command.startswith(REPLICA) and self.owns(pid)]

    def owns(self, pid):
        """Whether a process descends from the service."""
        while pid > 1 and pid != self.process.pid:
            pid = processes().get(pid, (b"", 0))[1]
        return pid == self.process.pid


def processes():
    """Of each process the command and its parent."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = (folder / "cmdline").read_bytes(), parent
        except OSError:  # it ended meanwhile
            continue
    return found


def wait_for(happened, seconds):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.3)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    found = Service(tmp_path_factory.mktemp("ray"))
    yield found
    found.client.close()
    mine = [pid for pid in processes() if found.owns(pid)]
    found.process.send_signal(signal.SIGTERM)
    assert found.process.wait(120) == 130
    wait_for(lambda: not set(mine) & set(processes()), 60)


def files(reply):
    return [base64.b64decode(picture) for picture in reply["pictures"]]


def drawn_here(model, folder, **request):
    """The files that the library writes."""
    own = model.draw(**{"captions": [CAPTION], "steps": STEPS, **request})
    return [own.save(folder / "own.png", force=True, only=i).read_bytes() for i in range(len(own))]


@of_ray
def test_clients_at_once_get_what_the_library_draws_from_both_replicas(service, tmp_path):
    jobs = [{"seed": seed, "num": num} for num, seeds in ((1, range(6)), (3, range(6, 10))) for seed in seeds]
    jobs.append({"seed": 1, "num": 1, "captions": ["one big yellow triangle"], "guidance": 2.0})
    service.until_both_answer()
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        replies = list(pool.map(lambda job: service.draw(**job), jobs))
    assert len({reply["replica"] for reply in replies}) == 2
    model = renamed(flaxgen.load("scenes"), "scenes")
    for job, reply in zip(jobs, replies, strict=True):
        assert files(reply) == drawn_here(model, tmp_path, **job)


@of_ray
def test_openai_has_the_same_pictures(service):
    body = {"prompt": CAPTION, "n": 1, "seed": 1, "steps": STEPS}
    reply = service.client.post("/v1/images/generations", json=body).json()
    assert [one["b64_json"] for one in reply["data"]] == service.draw(seed=1, num=1)["pictures"]
    assert [one["id"] for one in service.client.get("/v1/models").json()["data"]] == ["scenes", "other"]


@of_ray
def test_what_cannot_be_is_one_line_and_nobody_comes_in_without_the_token(service):
    reply = service.client.post("/api/models/scenes/draw", json={"captions": [CAPTION], "num": 0})
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "num=0: expected 1 or more")
    big = service.client.post("/api/models/scenes/draw", content=b" " * 10**6)
    assert big.status_code == 413
    for headers in ({}, {"Authorization": "Bearer another"}, {"X-Flaxgen": "1"}):
        assert httpx.get(f"{service.url}/v1/models", headers=headers, timeout=60).status_code == 401


@of_ray
def test_a_replica_that_is_killed_is_replaced(service):
    before = service.replicas()
    assert len(before) == 2
    known = {reply["replica"] for reply in service.until_both_answer()}
    os.kill(before[0], signal.SIGKILL)
    wanted = service.draw(seed=1, num=1)["pictures"]
    wait_for(lambda: len(service.replicas()) == 2 and before[0] not in service.replicas(), 300)
    again = service.until_both_answer()
    assert {reply["replica"] for reply in again} - known
    assert all(reply["pictures"] == wanted for reply in again)


@of_ray
def test_models_take_turns_where_one_is_held_at_a_time(service):
    for model in ("other", "scenes", "other"):
        (file,) = files(service.draw(model, seed=1, num=1))
        with Image.open(io.BytesIO(file)) as picture:
            assert json.loads(picture.info[ABOUT])["model"] == model


def failed(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


@of_ray
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nothing-of-that-name"], "nothing-of-that-name"),
        (["scenes", "--host", "0.0.0.0"], "give --token with 16 characters or more"),
        (["scenes", "--replicas", "2", "--accelerator", "GPU"], "--replicas 2 need one GPU each: this machine has"),
    ],
)
def test_what_cannot_be_served_is_one_line(flags, said):
    assert said in failed(SCRIPT, *flags)


def test_without_ray_it_says_how_to_get_it():
    code = f"import runpy, sys; sys.modules['ray'] = None; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    assert failed("-c", code) == "serve_ray: error: ray is missing: pip install 'flaxgen[ray]'\n"
