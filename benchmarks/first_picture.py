"""What the first and the second process pay until four pictures of a caption are drawn, with a fresh cache directory.

    python -m benchmarks.first_picture [--num 4] [--json FILE]

Each process does what `flaxgen draw` does with the model that comes with flaxgen. Processor seconds are user and system
time; on a busy machine they tell the work, and wall seconds tell the machine. `drawing` is what a second call takes in
a process of its own; `tracing` is what remains of the first call beside it and the compiling, with the reading of
programs that were kept; `compiling` includes the reading of what JAX kept. The bytes of all processes have to be equal.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CAPTION = "a red circle above a blue square"
PARTS = ("imports", "loading", "tracing", "compiling", "drawing")
Seconds = tuple[float, float]
"""Processor and wall."""


class Stopwatch:
    """Seconds from lap to lap, beginning at the start of the process for the processor's."""

    def __init__(self):
        self._before = (0.0, time.perf_counter())

    def lap(self) -> Seconds:
        """What has passed since the last one."""
        now = (time.process_time(), time.perf_counter())
        passed = (now[0] - self._before[0], now[1] - self._before[1])
        self._before = now
        return passed


def draw_here(num: int, again: bool) -> dict:
    """Draws in this process; with `again` twice, and the second call's seconds are those of the drawing."""
    watch = Stopwatch()
    from flaxgen import cache

    cache.begin()
    import jax

    from flaxgen import verbs

    seconds, compiling = {"imports": watch.lap()}, Compiling(jax.monitoring)
    model = verbs.load()
    seconds["loading"] = watch.lap()
    pictures = model.draw([CAPTION], seed=0, num=num).images
    seconds["first call"], seconds["compiling"] = watch.lap(), compiling.seconds
    if again:
        again_drawn = model.draw([CAPTION], seed=0, num=num).images
        seconds["drawing"] = watch.lap()
        assert (again_drawn == pictures).all()
    return {
        "seconds": seconds,
        "programs": compiling.programs,
        "read": compiling.read,
        "bytes": hashlib.sha256(pictures.tobytes()).hexdigest(),
    }


class Compiling:
    """Listens to JAX: the seconds from lowered programs to compiled ones, how many, and how many of them were read."""

    def __init__(self, monitoring):
        self.seconds, self.programs, self.read = (0.0, 0.0), 0, 0
        self._begun = time.process_time()
        monitoring.register_event_duration_secs_listener(self._duration)
        monitoring.register_event_listener(self._event)

    def _duration(self, event: str, wall: float, **_) -> None:
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            self._begun = time.process_time()
        if event == "/jax/core/compile/backend_compile_duration":
            processor, before = time.process_time() - self._begun, self.seconds
            self.seconds, self.programs = (before[0] + processor, before[1] + wall), self.programs + 1

    def _event(self, event: str, **_) -> None:
        self.read += event == "/jax/compilation_cache/cache_hits"


def run_process(cache: Path, num: int, again: bool = False) -> dict:
    """What `draw_here` says in a new process, and the seconds of the whole process."""
    command = [sys.executable, "-m", "benchmarks.first_picture", "--here", "--num", str(num)]
    environ = {**os.environ, "FLAXGEN_CACHE": str(cache)}
    begin, before = time.perf_counter(), os.times()
    done = subprocess.run(command + ["--again"] * again, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    after, wall = os.times(), time.perf_counter() - begin
    processor = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    said = json.loads(done.stdout.splitlines()[-1])
    said["seconds"]["whole process"] = (processor, wall)
    return said


def by_part(said: dict, drawing: Seconds) -> dict[str, Seconds]:
    """The seconds of a process by PARTS, and all of them."""
    seconds = {name: tuple(both) for name, both in said["seconds"].items()}
    rest = zip(seconds["first call"], seconds["compiling"], drawing, strict=True)
    tracing = tuple(max(call - compiling - draw, 0.0) for call, compiling, draw in rest)
    parts = {**seconds, "drawing": drawing, "tracing": tracing}
    return {name: parts[name] for name in (*PARTS, "whole process")}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=4, help="pictures (4)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.here:
        print(json.dumps(draw_here(parsed.num, parsed.again)))
        return
    with tempfile.TemporaryDirectory() as folder:
        first, second, warm = (run_process(Path(folder) / "cache", parsed.num, again) for again in (False, False, True))
        kept = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    drawing = tuple(warm["seconds"]["drawing"])
    figures = {"first": by_part(first, drawing), "second": by_part(second, drawing)}
    print(f"{'processor / wall seconds':28}" + "".join(f"{name:>16}" for name in figures))
    for part in (*PARTS, "whole process"):
        cells = (f"{figures[name][part][0]:.2f} / {figures[name][part][1]:.2f}" for name in figures)
        print(f"{part:28}" + "".join(f"{cell:>16}" for cell in cells))
    for label, name in (("programs", "programs"), ("of them read", "read")):
        print(f"{label:28}" + "".join(f"{said[name]:>16}" for said in (first, second)))
    same = first["bytes"] == second["bytes"] == warm["bytes"]
    print(f"kept: {kept / 2**20:.1f} MiB; bytes are {'equal' if same else 'DIFFERENT'}")
    if parsed.json:
        parsed.json.write_text(
            json.dumps({"seconds": figures, "kept_bytes": kept, "same_bytes": same}, indent=2) + "\n"
        )
    sys.exit(not same)


if __name__ == "__main__":
    main()
