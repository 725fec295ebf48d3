"""Several processes on loopback are one run: the same numbers, one log, one choice of checkpoint, one stop."""

import json
import signal
import time

import jax
import numpy as np
import pytest
from launch import finish, free_port, start

from flaxgen.train.checkpoint import newest_good, read, steps_in

pytestmark = pytest.mark.slow
WORDS = ("parallel=mesh", "fsdp=2", "width=128", "log_every=1", "preview_every=0")


def start_two(workdir, steps, *words):
    """Two processes of two devices each, sharding over processes."""
    port = free_port()
    return [start(workdir, steps, *WORDS, *words, f"distributed={port},2,{i}", devices=2) for i in range(2)]


def finish_all(processes):
    return [finish(process) for process in processes]


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def parameters(workdir):
    return read(workdir / "checkpoints", ("params", "ema_params"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process of four devices."""
    workdir = tmp_path_factory.mktemp("alone")
    process = start(workdir, 5, *WORDS, devices=4)
    said = finish(process)
    assert process.returncode == 0, said
    return workdir


def test_two_processes_are_one(tmp_path, alone):
    processes = start_two(tmp_path, 5)
    said = finish_all(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=1e-5)
    (step, state), (expected_step, expected) = parameters(tmp_path), parameters(alone)
    assert step == expected_step == 5
    for a, b in zip(*map(jax.tree.leaves, (state, expected)), strict=True):
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


def test_a_damaged_step_is_passed_over_by_both(tmp_path):
    """Both resume from the step that process 0 finds good, and end where an uninterrupted pair does."""
    finish_all(start_two(tmp_path / "whole", 6))
    finish_all(start_two(tmp_path / "parts", 4, "checkpoint_every=2"))
    (tmp_path / "parts" / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
    processes = start_two(tmp_path / "parts", 6, "checkpoint_every=2")
    said = finish_all(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert "state/manifest.ocdbt is missing" in said[0]
    assert "resumed after step 2" in said[0]
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, parameters(tmp_path / "parts"), parameters(tmp_path / "whole"))


def test_nothing_good_stops_both(tmp_path):
    finish_all(start_two(tmp_path, 1))
    (tmp_path / "checkpoints" / "1" / "manifest.json").unlink()
    processes = start_two(tmp_path, 2)
    for said, process in zip(finish_all(processes), processes, strict=True):
        assert process.returncode == 1
        assert "no checkpoint can be loaded" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_stops_both_at_one_step(tmp_path, number, told):
    processes = start_two(tmp_path, 100_000, "sleep=0.05")
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").exists() or len(losses(tmp_path)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    processes[told].send_signal(number)
    said = finish_all(processes)
    assert time.monotonic() - began < 10
    assert [process.returncode for process in processes] == [143, 143], said
    assert newest_good(tmp_path / "checkpoints") == len(losses(tmp_path))
    assert len(steps_in(tmp_path / "checkpoints")) == 1


def test_an_error_in_one_does_not_leave_the_other_waiting(tmp_path):
    """Only process 1 cannot write."""
    port, words = free_port(), (*WORDS, "width=256", "sleep=0.05")
    processes = [
        start(tmp_path, 100_000, *words, "checkpoint_every=10", f"distributed={port},2,{i}", *limit, devices=2)
        for i, limit in enumerate(((), ("file_limit=100000",)))
    ]
    began = time.monotonic()
    said = finish_all(processes)
    assert time.monotonic() - began < 60
    assert processes[0].returncode != 0
    assert processes[1].returncode == 1
    assert "step 10 could not be saved" in said[1]
