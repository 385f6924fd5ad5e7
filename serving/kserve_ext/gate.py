"""How many requests may wait: beyond that a server says so at once, instead of answering too late."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from serving.kserve_ext.errors import QueueFull
from serving.metrics import IN_FLIGHT

P = ParamSpec("P")
T = TypeVar("T")


class Gate:
    """Lets ``limit`` requests in at a time. Used from the event loop only, so it needs no lock."""

    def __init__(self, name: str, limit: int) -> None:
        self._name, self._limit, self._inside = name, limit, 0
        self._seconds = 0.05  # how long a request takes, as a moving average: for Retry-After
        self._gauge = IN_FLIGHT.labels(name)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be counted as inside.

        Raises:
            QueueFull: with when to come again.
        """
        if self._inside >= self._limit:
            wait = max(1, math.ceil(self._seconds))
            raise QueueFull(f"The {self._name} has {self._inside} requests waiting.", retry_after=wait)
        self._inside += 1
        self._gauge.set(self._inside)
        started = time.monotonic()
        try:
            yield
        finally:
            self._inside -= 1
            self._gauge.set(self._inside)
            self._seconds += 0.1 * (time.monotonic() - started - self._seconds)


class Workers:
    """Threads of a server's own, for work that would hold up the event loop."""

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do it on a thread; a request that is given up before its turn is not worked on."""
        future = self._pool.submit(work, *args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # It holds the error, whose traceback holds this frame and the image: a circle, which only the
            # collector would free.
            del future

    def close(self) -> None:
        """Stop the threads when they are done."""
        self._pool.shutdown(wait=True, cancel_futures=True)
