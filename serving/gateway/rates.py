"""How often a client may ask, how much at once, and how often an address may be wrong about its token.

Counted in this process: several gateways allow as many times more between them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from data.errors import Overloaded
from serving.gateway.errors import TooManyRequests


class Limiter:
    """The counts of one gateway."""

    def __init__(self, requests_per_minute: int) -> None:
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._most = RateLimitItemPerMinute(requests_per_minute)

    def count(self, client: str) -> None:
        """Count a request. ``TooManyRequests`` where it is one too many."""
        if not self._windows.hit(self._most, "asked", client):
            raise self._refusal(self._most, "asked", client)

    def count_refused(self, address: str) -> None:
        """Count a token that was none. ``TooManyRequests`` instead of a 401 where an address sends many.

        Good tokens from there are let in all the same: behind a proxy everybody has one address.
        """
        if not self._windows.hit(self._most, "wrong", address):
            raise self._refusal(self._most, "wrong", address)

    def _refusal(self, item: RateLimitItemPerMinute, kind: str, client: str) -> TooManyRequests:
        stats = self._windows.get_window_stats(item, kind, client)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        return TooManyRequests(f"At most {item.amount} requests a minute.", retry_after=wait)


class Places:
    """How many requests each client may have in work at once, so that a slow one leaves places to others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """A place for as long as the block lasts. ``Overloaded`` where the client has all that it may."""
        if self._held[client] >= self._most:
            raise Overloaded(f"{self._most} requests of this client are in work.", hint="Ask again later.")
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
