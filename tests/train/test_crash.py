"""Runs in processes of their own, killed, stopped, starved of disk, and resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from launch import ROOT, finish, free_port, start

from flaxgen.train.checkpoint import newest_good, read, steps_in

FIELDS = ("params", "ema_params", "opt_state")


def logged(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows}


def final_state(workdir):
    step, fields = read(workdir / "checkpoints", FIELDS)
    return step, fields


def wait_for_step(workdir, step, seconds=120):
    """Returns when the run has logged a step."""
    deadline = time.monotonic() + seconds
    path = workdir / "metrics.jsonl"
    while not (path.exists() and f'"step": {step},' in path.read_text()):
        assert time.monotonic() < deadline, f"step {step} was never reached"
        time.sleep(0.02)


def assert_same_run(workdir, reference):
    (step, state), (expected_step, expected) = final_state(workdir), final_state(reference)
    assert step == expected_step
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert logged(workdir) == logged(reference)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    """kill -9 at random times while every step is saved: 20 resumes, no traceback, replayed steps bit-equal."""
    words = ("log_every=1", "checkpoint_every=1", "preview_every=7", "width=128", "sleep=0.02")
    whole, killed, steps = tmp_path / "whole", tmp_path / "killed", 400
    reference = start(whole, steps, *words)
    finish(reference, 300)
    assert reference.returncode == 0
    rng, kills, cut, seen = random.Random(0), 0, 0, {}
    while kills < 20:
        process = start(killed, steps, *words)
        since = max(seen, default=0)
        wait_for_step(killed, since + 1)
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        assert "Traceback" not in finish(process)
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed: give it more steps"
        kills += 1
        cut += any((killed / "checkpoints").glob("saving-*"))
        for line in (killed / "metrics.jsonl").read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                row = json.loads(line)
                numbers = (row["loss"], row["grad_norm"])
                assert seen.setdefault(row["step"], numbers) == numbers, "a replayed step differs"
    assert cut > 0, "no kill came in the middle of a save: the test says less than it should"
    last = start(killed, steps, *words)
    said = finish(last, 300)
    assert last.returncode == 0
    assert "Traceback" not in said
    assert_same_run(killed, whole)


@pytest.mark.parametrize("distributed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sigterm_saves_and_leaves_in_time(tmp_path, distributed):
    words = ["log_every=1", "sleep=0.05", *([f"distributed={free_port()},1,0"] if distributed else [])]
    process = start(tmp_path, 100_000, *words)
    wait_for_step(tmp_path, 3)
    began = time.monotonic()
    process.terminate()
    said = finish(process)
    assert time.monotonic() - began < 10
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert "stopped by SIGTERM" in said
    assert newest_good(tmp_path / "checkpoints") == max(logged(tmp_path)), "the step reached is the step saved"


COMPILING = """
import hashlib
from flaxgen.train import stop
stop.GRACE = 0.5
with stop.stop_requests() as stop_after:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in one call of C without the lock, as a compilation is
"""


def test_signals_are_answered_while_python_cannot_run_a_handler():
    """The first at once, the second with the end of the process."""
    command, environment = [sys.executable, "-c", COMPILING], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "ready\n"
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        assert run.stderr.readline().startswith("SIGINT: stopping after this step; Ctrl-C once more")
        run.send_signal(signal.SIGINT)
        assert run.stderr.readline() == "SIGINT again: ending at once\n"
        assert run.wait(30) == 130
        assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    """The first run fits under the limit on a file's size; the second, wider one does not."""
    good = start(tmp_path, 2, "width=256", "checkpoint_every=2")
    finish(good)
    assert good.returncode == 0
    full = start(tmp_path, 6, "width=256", "checkpoint_every=2", "file_limit=100000")
    said = finish(full)
    assert full.returncode == 1
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("flaxgen: ")]
    assert "step 4 could not be saved (File too large); step 2 is the newest kept" in line
    assert str(tmp_path / "checkpoints" / "4") in line
    assert steps_in(tmp_path / "checkpoints") == [2]
    again = start(tmp_path, 6, "width=256", "checkpoint_every=2")
    assert "resumed after step 2" in finish(again)
    assert again.returncode == 0


@pytest.mark.slow
def test_a_loss_that_is_no_number_exits_with_an_error(tmp_path):
    process = start(tmp_path, 40, "checkpoint_every=10", "nan_at=15")
    said = finish(process)
    assert process.returncode == 1
    assert "flaxgen: grad_norm is nan at step 20" in said
    assert "Traceback" not in said
    assert newest_good(tmp_path / "checkpoints") == 10
