"""Stopping at a step boundary when the machine is taken away or the user has had enough."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from flaxgen import parallel

GRACE = 2.0
"""Seconds that a second SIGINT leaves to the main thread, which cannot be interrupted while it compiles."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], int]]:
    """Inside, SIGTERM and SIGINT only raise a flag, and are answered on stderr at once. Yields a function to ask after
    every step: the number of the signal that wants the run to stop, 0 if none. A second SIGINT interrupts at once.

    Under jax.distributed the answer is the same on all processes: JAX's handler, which is left in place, spreads
    SIGTERM and agrees on a step that none of them has passed; SIGINT is turned into SIGTERM. Outside of the main thread
    Python cannot handle signals, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: 0
        return
    received: list[int] = []

    def note(number, frame):
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if parallel.is_distributed():
                signal.raise_signal(signal.SIGTERM)

    def stop_after(step: int) -> int:
        if parallel.is_distributed():
            return signal.SIGTERM if parallel.preempted(step) else 0
        return received[0] if received else 0

    handled = [signal.SIGINT] if parallel.is_distributed() else [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, note) for number in handled}
    try:
        with _answered(handled):
            yield stop_after
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _answered(handled: Sequence[int]) -> Iterator[None]:
    """Inside, a thread answers these signals.

    Python runs its handlers between two bytecodes of the main thread, which a compilation can keep away for minutes;
    but the number of a signal is written to the wakeup descriptor as it comes.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    left = threading.Event()
    thread = threading.Thread(target=_answer, args=(ours, handled, left), name="signals", daemon=True)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        left.set()
        theirs.close()
        thread.join()
        ours.close()


def _answer(numbers: socket.socket, handled: Sequence[int], left: threading.Event) -> None:
    """Says what each signal does; ends the process if a second SIGINT finds the main thread out of reach."""
    seen: list[int] = []
    while content := numbers.recv(64):
        for number in content:
            if number not in handled:
                continue
            seen.append(number)
            name = signal.Signals(number).name
            if len(seen) == 1:
                _say(f"{name}: stopping after this step; Ctrl-C once more ends at once, without a checkpoint")
            elif number == signal.SIGINT and seen.count(number) == 2:
                _say("SIGINT again: ending at once")
                if not left.wait(GRACE):
                    os._exit(128 + number)


def _say(text: str) -> None:
    """A line of its own, also where a progress bar or an echoed ^C stands."""
    print(f"\n{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
