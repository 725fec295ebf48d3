"""What a studio of the model that comes along does with several users.

    python -m benchmarks.studio throughput [--users 8] [--num 1] [--rounds 3]
    python -m benchmarks.studio load [--clients 8] [--minutes 5]
    python -m benchmarks.studio first [--starts 2]

`throughput` draws one job of each user, together and one after the other by turns, and prints pictures a minute and
their ratio; the files have to have the same bytes. `load` has clients draw, vary, blend, edit and inpaint over
loopback, cancel and hang up, and counts answers of status 5xx, lost jobs, the server's memory, and pictures that are
not those of the library. `first` is the seconds from the start of a process to its first picture, with a cache
directory that the first start fills. Processor seconds tell the work where a machine is busy.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

CAPTIONS = ("a red circle above a blue square", "one big yellow triangle", "a picture of a blue cross", "a green ring")
WRITES = {"X-Flaxgen": "1"}
OVER = ("done", "failed", "cancelled")
CHECKED = 12
"""Results that are drawn again by the library."""


# throughput


def draw_all(entries: Any, users: int, num: int, together: int) -> tuple[float, float, list[str]]:
    """Wall and processor seconds of one job of each user, drawn so many at once, and the hashes of the files."""
    from flaxgen.app.limits import Limits
    from flaxgen.app.studio import close_studio, open_studio

    with tempfile.TemporaryDirectory() as folder:
        studio = open_studio(entries, Path(folder) / "studio", Limits()._replace(together=together))
        jobs = [
            studio.store.add_job(f"user-{i}", "scenes", "draw", asked(CAPTIONS[i % len(CAPTIONS)], num, i), None, 100)
            for i in range(users)
        ]
        begun = (time.perf_counter(), time.process_time())
        studio.worker.begin()
        while studio.store.unfinished():
            time.sleep(0.01)
        passed = (time.perf_counter() - begun[0], time.process_time() - begun[1])
        found = [(studio.store.owner(job), studio.store.job(job)) for job in jobs]
        files = [str(studio.store.file(id, user)) for user, job in found for id in (job.pictures if job else ())]
        close_studio(studio)
    assert len(files) == users * num, "a job failed"
    return *passed, files


def asked(caption: str, num: int, seed: int) -> dict[str, Any]:
    """A request to draw."""
    return {"captions": [caption], "num": num, "seed": seed}


def throughput(parsed: argparse.Namespace) -> int:
    """Prints the table; 1 where bytes differ."""
    from flaxgen import cache

    cache.begin()
    from flaxgen.app.catalogue import find_models

    (name, entry), *_ = find_models(["scenes"]).items()
    model = entry.load()
    entries = {name: entry._replace(load=lambda: model)}
    ways = {"one after the other": 1, "together": parsed.users}
    expected = [draw_all(entries, parsed.users, parsed.num, together)[2] for together in ways.values()]
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(parsed.rounds):
        for way, together in ways.items():
            figures[way].append(draw_all(entries, parsed.users, parsed.num, together)[:2])
    rates = {}
    for way, seconds in figures.items():
        wall, processor = (statistics.median(each) for each in zip(*seconds, strict=True))
        rates[way] = 60 * parsed.users * parsed.num / wall
        print(f"{way:24} {rates[way]:8.1f} pictures a minute {wall:8.2f} s wall {processor:8.2f} s of processors")
    print(f"ratio {rates['together'] / rates['one after the other']:.2f}")
    same = expected[0] == expected[1]
    print(f"bytes are {'equal' if same else 'DIFFERENT'}")
    return not same


# A process


class Server:
    """`flaxgen studio scenes` in a process of its own."""

    def __init__(self, folder: Path):
        command = [sys.executable, "-m", "flaxgen", "studio", "scenes", "--port", "0", "--folder", str(folder)]
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().partition(" at ")[2].split()[0]

    def client(self, user: str) -> httpx.Client:
        """A program of that user."""
        return httpx.Client(base_url=self.url, headers={**WRITES, "X-Flaxgen-User": user}, timeout=120)

    def memory(self) -> float:
        """Resident MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def processor(self) -> float:
        """Processor seconds of it until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server until the end of the block."""
    running = Server(folder)
    try:
        yield running
    finally:
        running.end()


def follow(client: httpx.Client, job: str, seconds: float = 900.0) -> dict:
    """A job once it is over."""
    end = time.monotonic() + seconds
    while (found := client.get(f"/api/jobs/{job}").json())["state"] not in OVER:
        assert time.monotonic() < end, f"the job is {found['state']} after {seconds} s"
        time.sleep(0.05)
    return found


def first(parsed: argparse.Namespace) -> int:
    """Prints the seconds to the first picture of each start."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FLAXGEN_CACHE", str(Path(folder) / "cache"))
        for start in range(parsed.starts):
            with server(Path(folder) / "studio") as running, running.client("ann") as client:
                answered = (time.perf_counter() - running.begun, running.processor())
                job = client.post("/api/models/scenes/draw", json=asked(CAPTIONS[0], 1, start)).json()["id"]
                assert follow(client, job)["state"] == "done"
                drawn = (time.perf_counter() - running.begun, running.processor())
            for what, (wall, processor) in (("an address", answered), ("the first picture", drawn)):
                print(f"start {start + 1}: {what} after {wall:.1f} s, {processor:.1f} s of processors", flush=True)
    return 0


# Load


class Load:
    """Clients that ask at random, and what came of it."""

    def __init__(self, running: Server):
        self.server, self.counts, self.lock = running, Counter(), threading.Lock()
        self.results: list[tuple[dict, list[bytes]]] = []

    def count(self, name: str) -> None:
        """One more of that."""
        with self.lock:
            self.counts[name] += 1

    def client(self, number: int, until: float) -> None:
        """A user's work until then."""
        chance, pictures = random.Random(number), []
        with self.server.client(f"user-{number}") as client:
            client.event_hooks["response"] = [lambda reply: self.count(f"{reply.status_code // 100}xx")]
            pictures.append(client.post("/api/pictures", content=a_picture(), headers=PNG).json()["id"])
            pictures.append(client.post("/api/pictures", content=a_picture(), headers=PNG).json()["id"])
            while time.monotonic() < until:
                verb, request = a_request(chance, pictures)
                posted = client.post("/api/jobs", json={"model": "scenes", "verb": verb, "request": request})
                if posted.status_code != 201:
                    self.count(f"refused {verb}: {posted.text[:80]}")
                    continue
                what = chance.random()
                if what < 0.15:
                    time.sleep(chance.random())
                    client.post(f"/api/jobs/{posted.json()['id']}/cancel")
                elif what < 0.3:
                    self.hang_up(client)
                self.keep(client, posted.json()["id"], pictures)

    def hang_up(self, client: httpx.Client) -> None:
        """Listens to events, and goes in the middle."""
        with contextlib.suppress(httpx.HTTPError), client.stream("GET", "/api/events") as stream:
            next(stream.iter_raw())
        self.count("hung up")

    def keep(self, client: httpx.Client, job: str, pictures: list[str]) -> None:
        """Waits for a job, and keeps some of what it drew."""
        try:
            found = follow(client, job)
        except (AssertionError, KeyError):
            return self.count("lost")
        self.count(found["state"])
        if found["state"] == "failed":
            self.count(f"failed: {found['error']}")
        if found["state"] == "done":
            files = [client.get(f"/api/pictures/{id}").content for id in found["pictures"]]
            pictures[2:] = found["pictures"][:1]
            with self.lock:
                self.results.append((found, files))


PNG = {"Content-Type": "image/png"}


def a_picture() -> bytes:
    """A square on a ground, as a PNG file."""
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((200, 30, 30), (16, 16, 48, 48))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def a_request(chance: random.Random, pictures: list[str]) -> tuple[str, dict[str, Any]]:
    """A verb and a request, mostly to draw."""
    verb = chance.choices(["draw", "vary", "blend", "inpaint", "edit"], [6, 2, 1, 1, 1])[0]
    some = {"seed": chance.randrange(1000), "num": 1}
    one, other = chance.choice(pictures), chance.choice(pictures)
    caption = chance.choice(CAPTIONS)
    asked_by_verb: dict[str, dict[str, Any]] = {
        "draw": {"captions": [caption]},
        "vary": {"image": one},
        "blend": {"a": one, "b": other, "num": 2},
        "inpaint": {"image": pictures[0], "mask": pictures[1], "caption": caption},
        "edit": {"image": one, "caption_from": CAPTIONS[0], "caption_to": caption, "num": 2},
    }
    return verb, some | asked_by_verb[verb]


def count_differences(results: list[tuple[dict, list[bytes]]]) -> tuple[int, int]:
    """How many drawings are not those of the library, of how many that are compared."""
    import flaxgen

    model = flaxgen.load("scenes")
    drawn = [(job, files) for job, files in results if job["verb"] == "draw"]
    compared = random.Random(0).sample(drawn, min(CHECKED, len(drawn)))
    wrong = 0
    for job, files in compared:
        request = job["request"]
        images = model.draw(request["captions"], num=request["num"], seed=request["seed"]).images
        theirs = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
        wrong += not np.array_equal(np.stack(theirs), images)
    return wrong, len(compared)


def load(parsed: argparse.Namespace) -> int:
    """Prints what happened; 1 where something should not have."""
    from flaxgen import cache

    cache.begin()
    memory, seconds = [], 60 * parsed.minutes
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "studio") as running:
        busy, until = Load(running), time.monotonic() + seconds
        threads = [threading.Thread(target=busy.client, args=(i, until)) for i in range(parsed.clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(running.memory())
            time.sleep(5)
        memory.append(running.memory())
        with running.client("user-0") as client:
            left = client.get("/api/status").json()["queue"]
    print(", ".join(f"{name}: {count}" for name, count in sorted(busy.counts.items())), f"in the line: {left}")
    middle = memory[len(memory) // 2]
    print(f"memory: {memory[0]:.0f} MiB at the start, {middle:.0f} in the middle, {memory[-1]:.0f} at the end")
    wrong, compared = count_differences(busy.results)
    print(f"{compared} drawings compared with the library's: {wrong} differ")
    return bool(busy.counts["5xx"] or busy.counts["lost"] or busy.counts["failed"] or wrong or left)


def main() -> None:
    """Runs what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runs: dict[Callable, dict[str, float]] = {
        throughput: {"users": 8, "num": 1, "rounds": 3},
        load: {"clients": 8, "minutes": 5.0},
        first: {"starts": 2},
    }
    for run, options in runs.items():
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        for name, default in options.items():
            command.add_argument(f"--{name}", type=type(default), default=default, help=f"({default})")
    parsed = parser.parse_args()
    sys.exit(parsed.run(parsed))


if __name__ == "__main__":
    main()
