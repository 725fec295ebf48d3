"""What happens, told to the browsers and programs that listen: each hears of its own user's jobs alone."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

from flaxgen.app.limits import Limits

HEARTBEAT = 15.0
"""Seconds of silence after which a comment says that the connection lives."""
Queue = asyncio.Queue[bytes | None]


class TooMany(Exception):
    """As many listen already as may."""


class Events:
    """Who listens, by user. `tell` may be called by any thread, all else by the server's own."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._listeners: dict[str, list[Queue]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Begins, in the loop that the server runs in."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Ends all streams."""
        for queues in self._listeners.values():
            for queue in queues:
                _put(queue, None)
        self._loop = None

    def tell(self, user: str, name: str, data: Mapping[str, Any]) -> None:
        """An event for those who listen for a user."""
        loop = self._loop
        if loop is not None and self._listeners.get(user):
            event = encode(name, data)
            with contextlib.suppress(RuntimeError):  # the loop may have just ended
                loop.call_soon_threadsafe(self._deliver, user, event)

    def hears(self, user: str) -> bool:
        """Whether anybody listens for a user."""
        return bool(self._listeners.get(user))

    def _deliver(self, user: str, event: bytes) -> None:
        for queue in self._listeners.get(user, ()):
            _put(queue, event)

    def listen(self, user: str, first: list[bytes]) -> AsyncIterator[bytes]:
        """A stream of events, which begins with those of `first`.

        Raises:
            TooMany: if as many listen as may.
        """
        mine, all_of_them = len(self._listeners.get(user, ())), sum(map(len, self._listeners.values()))
        if mine >= self._limits.listeners or all_of_them >= self._limits.listeners_of_all:
            raise TooMany
        queue: Queue = asyncio.Queue(self._limits.events)
        self._listeners.setdefault(user, []).append(queue)
        for event in first:
            _put(queue, event)
        return self._stream(user, queue)

    async def _stream(self, user: str, queue: Queue) -> AsyncIterator[bytes]:
        try:
            yield b": hello\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), HEARTBEAT)
                except TimeoutError:
                    event = b": still here\n\n"
                if event is None:
                    return
                yield event
        finally:
            queues = self._listeners[user]
            queues.remove(queue)
            if not queues:
                del self._listeners[user]


def encode(name: str, data: Mapping[str, Any]) -> bytes:
    """An event as bytes of a stream."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _put(queue: Queue, event: bytes | None) -> None:
    """Adds an event; of those who do not read, the oldest is dropped."""
    while True:
        try:
            queue.put_nowait(event)
            return
        except asyncio.QueueFull:
            queue.get_nowait()
