"""What a running studio is made of, opened and closed as one."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flaxgen.app.catalogue import Entry
from flaxgen.app.events import Events
from flaxgen.app.guard import LOOPBACK, Door
from flaxgen.app.limits import Limits
from flaxgen.app.line import Line
from flaxgen.app.shelf import Shelf, private
from flaxgen.app.store import Store
from flaxgen.app.worker import Worker


class Studio(NamedTuple):
    """All that a running studio is made of."""

    entries: Mapping[str, Entry]
    limits: Limits
    door: Door
    store: Store
    shelf: Shelf
    line: Line
    events: Events
    worker: Worker
    lock: int


def open_studio(
    entries: Mapping[str, Entry], folder: Path, limits: Limits, *, token: str = "", port: int = 0,
    names: frozenset[str] = frozenset(), addresses: bool = False,
) -> Studio:  # fmt: skip
    """A studio that keeps everything in `folder`, let in as `guard.Door` says; loopback's names always are.

    Raises:
        ValueError, OSError: if the folder is another studio's, or cannot be used.
    """
    lock = _claim(private(folder))
    door = Door(token, _secret(folder), names | LOOPBACK, addresses, port)
    store, shelf = Store(folder / "studio.sqlite"), Shelf(folder)
    line, events = Line(), Events(limits)
    return Studio(
        entries, limits, door, store, shelf, line, events, Worker(entries, store, shelf, line, events, limits), lock
    )


def _claim(folder: Path) -> int:
    """Holds the folder for this process; the kernel lets go of it when the process ends, however it ends."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ValueError(f"another studio works in {folder}: end it, or name another --folder") from None
    return lock


def _secret(folder: Path) -> bytes:
    """What signs the cookies, the same after a restart."""
    path = folder / "secret"
    with contextlib.suppress(FileExistsError):
        part = folder / "secret.part"
        part.unlink(missing_ok=True)
        if path.exists():
            raise FileExistsError
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        part.rename(path)
    return path.read_bytes()


def close_studio(studio: Studio) -> None:
    """Stops drawing and lets go of the folder."""
    studio.worker.end()
    studio.store.close()
    studio.shelf.close()
    os.close(studio.lock)
