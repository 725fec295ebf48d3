"""Stopping at a step boundary when the machine is taken away or the user has had enough."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from flaxgen import parallel


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], int]]:
    """Inside, SIGTERM and SIGINT only raise a flag. Yields a function to ask after every step: the number of the signal
    that wants the run to stop, 0 if none. A second SIGINT interrupts at once.

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
        yield stop_after
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
