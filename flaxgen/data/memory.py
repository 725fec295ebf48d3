"""Memory that threads share: what does not fit waits, so that how much is taken does not grow with their number."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Memory:
    """`size` bytes for all threads together. Whoever asks first is served first, so that a large share is not passed
    over for ever."""

    def __init__(self, size: int):
        self.size = self.free = size
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextlib.contextmanager
    def hold(self, wanted: int) -> Iterator[None]:
        """Waits until that many bytes are free, and keeps them inside; more than there are is all of them."""
        wanted, ticket = min(wanted, self.size), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and wanted <= self.free)
                self.free -= wanted
            finally:  # an interrupt too
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.free += wanted
                self._changed.notify_all()
