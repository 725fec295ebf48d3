"""Two runs never share a directory, and a run that is gone holds none."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from launch import ROOT

from flaxgen.train import lock
from flaxgen.train.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from flaxgen.train.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the lock of tmp_path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_lock(workdir, host, pid, age=0.0):
    path = workdir / "lock"
    path.write_text(json.dumps({"host": host, "pid": pid}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_second_run_is_refused_in_one_line_that_names_the_first(tmp_path, other):
    with pytest.raises(ValueError, match="is being trained in by process") as error, locked(tmp_path):
        pass
    expected = f"{tmp_path} is being trained in by process {other.pid} on {socket.gethostname()}: stop it, or choose "
    assert str(error.value) == f"{expected}another --workdir"
    assert json.loads((tmp_path / "lock").read_text())["pid"] == other.pid, "the refused one leaves the lock alone"


def test_a_killed_run_holds_nothing(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock").exists()


def test_the_number_of_a_process_that_is_gone_may_belong_to_another_now(tmp_path):
    """Process 1 runs, but holds no lock."""
    write_lock(tmp_path, socket.gethostname(), 1)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}'])
def test_a_torn_lock_is_nobodys(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_another_host_that_is_silent_is_taken_for_dead(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(lock, "SILENCE", 0.5)
    write_lock(tmp_path, "elsewhere", 4711)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert "process 4711 on elsewhere may be training in" in capfd.readouterr().err


def test_another_host_that_was_silent_for_hours_is_not_waited_for(tmp_path, capfd):
    write_lock(tmp_path, "elsewhere", 4711, age=7200)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert capfd.readouterr().err == ""


def test_another_host_that_shows_life_is_left_alone(tmp_path, monkeypatch):
    path = write_lock(tmp_path, "elsewhere", 4711)
    monkeypatch.setattr(lock, "SILENCE", 30)
    beat = threading.Timer(0.5, lambda: os.utime(path))
    beat.start()
    with pytest.raises(ValueError, match="by process 4711 on elsewhere"), locked(tmp_path):
        pass
    beat.join()
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_a_run_shows_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / "lock", (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / "lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_where_the_kernel_does_not_lock_the_process_is_looked_for(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    write_lock(tmp_path, socket.gethostname(), os.getppid())
    with pytest.raises(ValueError, match=f"by process {os.getppid()}"), locked(tmp_path):
        pass
    write_lock(tmp_path, socket.gethostname(), 2**22 + 1)  # more than Linux gives out
    with locked(tmp_path):
        pass


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file"):
        pass
