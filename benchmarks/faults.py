"""Does anything go wrong in silence? Damage, kills and nonsense, seeded and counted.

    python -m benchmarks.faults                       # all of it, about ten minutes on two cores
    python -m benchmarks.faults checkpoints commands --seed 1

A trial is clean where flaxgen gives what is right, or refuses in one line. It is not where the answer is wrong without
a word (silent), where it takes more than LIMIT seconds (hang), or where what is wrong ends in a traceback. Prints each
trial that is not clean, and a line a kind; the exit code is 1 if there was any.
"""

import argparse
import contextlib
import io
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.damage import EXPERIMENT, RUN, Trial, checkpoints, data, models, picture, same, trained
from flaxgen.cli import main as flaxgen
from flaxgen.train import checkpoint

LIMIT = 60
KILLED = ("steps=4000", "checkpoint_every=200", "preview_every=0", "log_every=200", "net.width=32", "net.depth=1")
NO_NUMBER = ("-1", "nan", "1e999", "x", "", "ten", "-inf", "1/2", "[]")
FILES = ("missing.png", "/dev/null", ".", "", "binary", "a" * 300, "new\nline", "nul\0byte", "empty")


class Hang(BaseException):
    """More than LIMIT seconds went by."""


def judge(trial: Callable[[], str | None]) -> str | None:
    """What is not clean of a trial; an error that a command would print as one line is clean."""

    def give_up(*_):
        raise Hang

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return trial()
    except (ValueError, OSError, FloatingPointError):
        return None
    except Hang:
        return "hang"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)


def kills(folder: Path, rng: random.Random) -> Iterator[Trial]:
    """12 runs that are killed and resumed, whose last state is that of a run that was not."""

    def start(name: str) -> subprocess.Popen:
        words = ["train", str(EXPERIMENT), "--workdir", str(folder / name), "--set", *KILLED]
        return subprocess.Popen(
            [sys.executable, "-m", "flaxgen", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def last(name: str):
        return checkpoint.read(folder / name / "checkpoints", ("params", "ema_params", "opt_state"))

    began = time.monotonic()
    assert start("whole").wait() == 0
    seconds, truth = time.monotonic() - began, last("whole")

    for i in range(12):
        after = rng.uniform(0.3, 1.0) * seconds

        def kill(name=f"killed{i}", after=after):
            process = start(name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=after)
            process.kill()
            process.communicate()
            again = start(name)
            said = again.communicate(timeout=LIMIT)[1].decode()
            if again.returncode or "Traceback" in said:
                return f"traceback: {said[-200:]}"
            return None if same(last(name), truth) else "silent: the run that was resumed ended otherwise"

        yield "kills", kill


def commands(folder: Path, rng: random.Random) -> Iterator[Trial]:
    """150 commands with a value that cannot be: exit code 2 and one line."""
    run, own, there = trained(folder), folder / "picture.png", Path.cwd()
    own.write_bytes(picture(9))
    (folder / "binary").write_bytes(rng.randbytes(1000))
    (folder / "empty").mkdir(exist_ok=True)
    paint = ["vary", str(own)], ["edit", str(own), "--from", "a", "--to", "b"]
    numbers = {
        ("sample", str(run)): ("--num", "--steps", "--seed", "--first"),
        ("draw", "a ring"): ("--num", "--steps", "--seed", "--guidance", "--candidates", "--prior-guidance"),
        tuple(paint[0]): ("--num", "--steps", "--guidance", "--candidates"),
        tuple(paint[1]): ("--num", "--strength", "--guidance"),
        ("inpaint", str(own), str(own), "a ring"): ("--num", "--feather", "--guidance"),
        ("blend", str(own), str(own)): ("--num", "--seed"),
        ("eval", str(run), "--data", "own"): ("--num", "--batch"),
    }
    sets = (
        "steps",
        "batch_size",
        "net.width",
        "net.depth",
        "data.size",
        "optimizer.learning_rate",
        "seed",
        "log_every",
    )
    paths = ("info", "show", "again", "sample", "train", "upscale", "eval", "export", "import", "vary")
    for i in range(150):
        if i % 3 == 0:
            words, flags = rng.choice(list(numbers.items()))
            arguments = [*words, rng.choice(flags), rng.choice(NO_NUMBER)]
        elif i % 3 == 1:
            change = f"{rng.choice(sets)}={rng.choice(NO_NUMBER)}"
            arguments = ["train", str(EXPERIMENT), "--workdir", str(folder / f"new{i}"), "--set", *RUN, change]
        else:
            command, name = rng.choice(paths), rng.choice(FILES)
            more = {
                "train": ["--workdir", str(folder / f"new{i}")],
                "export": ["new"],
                "import": ["new"],
                "upscale": [name],
            }
            arguments = [command, name, *more.get(command, [])]

        def ask(arguments=arguments):
            os.chdir(folder)
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said):
                    code = flaxgen(arguments)
            except SystemExit as error:
                code = error.code
            except ValueError as error:
                return f"traceback: {error}"
            finally:
                os.chdir(there)
            lines = said.getvalue().strip().splitlines()
            return None if code == 2 and lines and lines[-1].startswith("flaxgen") else f"silent: exit code {code}"

        yield f"commands, {arguments[0]} ... {' '.join(arguments[-2:])[-60:]!r}", ask


KINDS = {kind.__name__: kind for kind in (checkpoints, models, data, kills, commands)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="some of them; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    logging.getLogger("flaxgen").setLevel(logging.ERROR)  # what is skipped is said, and right
    faults = 0
    for name in parsed.kinds or KINDS:
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            for what, trial in KINDS[name](Path(folder), random.Random(f"{name} {parsed.seed}")):
                fault = judge(trial)
                found[fault.partition(":")[0] if fault else "clean"] += 1
                if fault:
                    print(f"  {what}: {fault}", flush=True)
        faults += found.total() - found["clean"]
        print(f"{name}: {', '.join(f'{count} {verdict}' for verdict, count in found.items())}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
