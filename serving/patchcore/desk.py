"""Work off the event loop: so many at once, so many waiting, each with a time by which it must be done."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from serving.metrics import IN_FLIGHT
from serving.patchcore.errors import Busy, TooSlow

P = ParamSpec("P")
T = TypeVar("T")

# Work looks at its deadline itself, and then leaves nothing half done; this is for work that doesn't get to.
_GRACE_S = 5.0


class Deadline:
    """A point in time that long work holds itself to, and a way to end it before."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._ended = threading.Event()

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def end(self) -> None:
        """Nobody waits any more."""
        self._ended.set()

    def check(self) -> None:
        """Raises ``TooSlow`` from then on."""
        if self._ended.is_set() or time.monotonic() >= self._end:
            raise TooSlow(
                f"The work was not done within {self.seconds:g} s, and was given up. Nothing was changed.",
                hint="Send fewer or smaller images, or raise the server's time limit.",
            )


class Desk:
    """Threads of the service's own for one kind of work. ``admit`` is for the event loop only."""

    def __init__(self, name: str, workers: int, waiting: int) -> None:
        self._name, self._limit = name, workers + waiting
        self._workers = workers
        self._inside = 0
        self._seconds = 0.05  # how long one takes, as a moving average: for Retry-After
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"patchcore-{name}")
        self._gauge = IN_FLIGHT.labels(f"patchcore-{name}")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Be counted, from before the body is read until the answer is made.

        Raises:
            Busy: as many as may be are.
        """
        if self._inside >= self._limit:
            wait = max(1, math.ceil(self._seconds * self._inside / self._workers / 2))
            raise Busy(
                f"{self._inside} requests to {self._name} are waiting.",
                retry_after=min(wait, 600),
                hint=f"Come again in {min(wait, 600)} s.",
            )
        self._inside += 1
        self._gauge.set(self._inside)
        started = time.monotonic()
        try:
            yield
        finally:
            self._inside -= 1
            self._gauge.set(self._inside)
            self._seconds += 0.1 * (time.monotonic() - started - self._seconds)

    async def run(
        self,
        work: Callable[Concatenate[Deadline, P], T],
        deadline: Deadline,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do it on a thread. ``work`` takes the deadline first and looks at it.

        Raises:
            TooSlow: it did not end in time.
        """

        def begin() -> T:
            deadline.check()
            return work(deadline, *args, **kwargs)

        future = self._pool.submit(begin)
        try:
            async with asyncio.timeout(deadline.left + _GRACE_S):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            deadline.end()
            deadline.check()
            raise
        except asyncio.CancelledError:
            deadline.end()
            raise
        finally:
            # It holds the error, whose traceback holds this frame and the images: a circle, which only the
            # collector would free.
            del future

    async def offload(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A short blocking call, in the loop's own threads: it must not wait behind long work."""
        return await asyncio.to_thread(call, *args, **kwargs)

    def close(self) -> None:
        """Stop the threads when what runs is done; what waits is given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)
