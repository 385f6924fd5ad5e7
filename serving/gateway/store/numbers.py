"""Numbers that only grow, by which rows are ordered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Numbers:
    """Gives numbers: microseconds since 1970, and always more than the last one.

    A clock that is set back does not turn the order round: this process goes on from its last number, and a
    new process from the last one in the database. No lock is held in the database for it. Processes that
    write at once are ordered as well as their clocks agree.
    """

    def __init__(self, last: int = 0, clock: Callable[[], int] = time.time_ns) -> None:
        self._last = last
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """The next number."""
        with self._lock:
            self._last = max(self._last + 1, self._clock() // 1000)
            return self._last
