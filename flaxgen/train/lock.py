"""One run at a time in a run directory: two would remove each other's unfinished checkpoints."""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaxgen import bounded_json, parallel

LOCK = "lock"
BEAT = 20.0
"""Seconds between two signs of life, which are the lock's time of change."""
SILENCE = 90.0
"""Seconds without one after which the process on another host is taken for dead: clocks may differ, so they are
watched for and not read off; one that is STALE seconds old is not waited for."""
STALE = 3600.0


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Inside, this run alone trains in `workdir`; process 0 sees to it for all processes.

    The lock says host and process. That of a process that is gone is taken over: on this host the kernel knows, on
    another it has shown no life for SILENCE seconds.

    Raises:
        ValueError: if another run trains there.
        OSError: if the lock cannot be written.
    """
    descriptor, refusal = -1, None
    if parallel.process_index() == 0:
        try:
            descriptor = _take(workdir)
        except (ValueError, OSError) as error:
            refusal = error
    if parallel.agree(int(refusal is not None)):
        raise refusal or ValueError(f"process 0 cannot train in {workdir} and says why")
    if descriptor < 0:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_live, args=(descriptor, done), name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        (workdir / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _take(workdir: Path) -> int:
    """The descriptor of the lock, which is ours and names us."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _check_free(workdir, descriptor)
            if not _is_file(descriptor, path):  # its owner has removed it meanwhile
                os.close(descriptor)
                continue
            owner = {"host": socket.gethostname(), "pid": os.getpid()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _check_free(workdir: Path, descriptor: int) -> None:
    """Raises ValueError if the owner of the lock lives."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kernel_knows = True
    except BlockingIOError as error:
        raise _refusal(workdir, _owner(descriptor)) from error
    except OSError:  # not on this file system
        kernel_knows = False
    owner = _owner(descriptor)
    if owner is None:
        return
    if owner["host"] == socket.gethostname():
        if not kernel_knows and _is_running(owner["pid"]):
            raise _refusal(workdir, owner)
    elif _lives_elsewhere(workdir, descriptor, owner):
        raise _refusal(workdir, owner)


def _lives_elsewhere(workdir: Path, descriptor: int, owner: dict[str, Any]) -> bool:
    """Whether the owner on another host shows life while it is watched."""
    last = os.fstat(descriptor).st_mtime
    if time.time() - last > STALE:
        return False
    print(f"flaxgen: process {owner['pid']} on {owner['host']} may be training in {workdir}: waiting {SILENCE:.0f} s "
          "for a sign of life", file=sys.stderr, flush=True)  # fmt: skip
    deadline = time.monotonic() + SILENCE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENCE / 10))
        if os.stat(workdir / LOCK).st_mtime != last:
            return True
    return False


def _refusal(workdir: Path, owner: dict[str, Any] | None) -> ValueError:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return ValueError(f"{workdir} is being trained in by {who}: stop it, or choose another --workdir")


def _owner(descriptor: int) -> dict[str, Any] | None:
    """Who has written the lock; None for one that is new or torn."""
    try:
        owner = bounded_json.loads(os.pread(descriptor, 4096, 0))
        good = isinstance(owner["host"], str) and isinstance(owner["pid"], int)
    except (ValueError, KeyError, TypeError):
        return None
    return owner if good else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the descriptor is of what has that name now."""
    ours = os.fstat(descriptor)
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)


def _live(descriptor: int, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
