"""What was compiled, for tests that say nothing is."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The programs that were compiled in the block, one entry each."""
    seen: list[str] = []
    listening = [True]

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if listening and "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        listening.clear()  # there is no way to take a listener back
