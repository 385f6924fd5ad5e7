"""Numbers that only grow, by which rows are ordered, and how far their order is settled.

A page of a list ends at a number, and the next page begins after it. A row whose number is smaller and whose
transaction ends later would be on neither. In SQLite there is one writer, who draws its numbers while it is
alone. In PostgreSQL a transaction announces itself before it draws its first one, by a shared advisory lock
that ends with it and waits for nobody: the lock's key is the server's time, and all its numbers are above.
:func:`horizon` asks for the smallest of these keys; below it nothing is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

# An advisory lock's key has 64 bits: a mark of ours, then microseconds since 1970, which need 52 until 2112.
_MARK = 0x5D1
_BITS = 52
_NOW = "floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# From the inside out, each before the next: the time, the lock with it as its key, and the time again.
_DRAW = text(
    f"""
    SELECT {_NOW} FROM (
        SELECT pg_advisory_xact_lock_shared({_MARK}::bigint << {_BITS} | began.at)::text AS held
        FROM (SELECT {_NOW} AS at OFFSET 0) AS began OFFSET 0
    ) AS announced WHERE held IS NOT NULL
    """
)
_OPEN = text(
    f"""
    SELECT floor(extract(epoch FROM statement_timestamp()) * 1000000)::bigint, (
        SELECT min((classid::bigint << 32 | objid::bigint) & ((1::bigint << {_BITS}) - 1))
        FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1
            AND classid::bigint >> {_BITS - 32} = {_MARK}
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
    """
)


class Numbers:
    """Gives numbers: microseconds since 1970, and always more than the last one.

    A clock that is set back does not turn the order round: this process goes on from its last number, and a
    new process from the last one in the database.
    """

    def __init__(self, last: int = 0, clock: Callable[[], int] = time.time_ns) -> None:
        self._last = last
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """The next number, by this machine's clock."""
        return self.after(self._clock() // 1000)

    @property
    def last(self) -> int:
        """The last one that was given."""
        return self._last

    def after(self, now: int) -> int:
        """The next number, at least ``now``."""
        with self._lock:
            self._last = max(self._last + 1, now)
            return self._last


class Announced:
    """The numbers of one transaction in PostgreSQL, which is announced with the first of them."""

    def __init__(self, numbers: Numbers, session: Session) -> None:
        self._numbers, self._session = numbers, session
        self._at: Any = None

    def __call__(self) -> int:
        """The next number."""
        if self._at is None:
            with self._session.no_autoflush:
                self._at = self._session.scalar(_DRAW)
        return self._numbers.after(self._at)


def horizon(connection: Connection, last: int) -> int:
    """Below which number nothing will be added any more, in PostgreSQL.

    Ask in a transaction of its own, before the one that reads: what ended since then that one sees. ``last``
    is a number that was given before: numbers that are ahead of the server's clock, since it was set back,
    are not hidden from who has given them.
    """
    found: tuple[Any, ...] = tuple(connection.execute(_OPEN).one())
    now, begun = found
    settled: int = max(now, last + 1)
    return settled if begun is None else min(settled, begun)
