"""Follow a source: load what is newly named off the event loop, publish it when proved, else keep the old."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from data.errors import RetidermError, ServingError
from serving.source import Served, Source

_LOG = logging.getLogger("retiderm.serving")

T = TypeVar("T")

# A bundle that failed is tried again, since a copy to a network disk may only be slow.
_RETRY_S = 15.0


class Watcher(Generic[T]):
    """Loads what a source names.

    ``load`` proves a bundle and gives what serves it, raising when it mustn't serve; ``publish`` puts it in
    the old one's place in one step. One that raises, whatever it is, leaves the old one and the others alone.

    What is named no more: ``leave`` is told its name at once, ``drop`` after ``linger_s``, so that whoever
    asks for it hears of it before it is gone. ``is_new`` says whether something has to be loaded at all.
    """

    def __init__(
        self,
        source: Source,
        load: Callable[[Served], T],
        publish: Callable[[Served, T], None],
        *,
        interval_s: float = 1.0,
        on_outcome: Callable[[str, str], None] = lambda task, outcome: None,
        leave: Callable[[str], None] = lambda name: None,
        drop: Callable[[str], None] = lambda name: None,
        linger_s: float = 0.0,
        is_new: Callable[[Served, Served | None], bool] = lambda served, old: served != old,
    ) -> None:
        self._source, self._load, self._publish = source, load, publish
        self._interval_s, self._on_outcome = interval_s, on_outcome
        self._leave, self._drop, self._linger_s, self._is_new = leave, drop, linger_s, is_new
        self._current: dict[str, Served] = {}
        self._failed: dict[Served, float] = {}
        self._leaving: dict[str, float] = {}
        self._looking = asyncio.Lock()

    def first(self) -> None:
        """Load everything once, before serving.

        Raises:
            ServingError: nothing is named, or nothing that is named may serve.
        """
        named = self._source.scan()
        if not named:
            raise ServingError(
                "Nothing is promoted yet, so there is nothing to serve.",
                hint="Train and promote one (retiderm run TASK --data SOURCE), or name one with --bundle.",
            )
        errors = [error for served in named.values() if (error := self._try(served)) is not None]
        if not self._current:
            raise errors[0]

    async def refresh(self) -> None:
        """Look once, and load and publish what changed."""
        # One at a time: requests look as well, and a version must be published once only.
        async with self._looking:
            named = await asyncio.to_thread(self._source.scan)
            for served in named.values():
                if self._is_due(served):
                    await asyncio.to_thread(self._try, served)
            self._let_go(set(self._current) - set(named))

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.refresh()
            except Exception:
                # Whatever it is, what serves must serve on, and the next look may succeed.
                _LOG.exception("looking for new versions failed")

    def _let_go(self, unnamed: set[str]) -> None:
        now = time.monotonic()
        for name in sorted(unnamed):
            if name not in self._leaving:
                self._leaving[name] = now
                _LOG.info("%s was withdrawn", name)
                self._leave(name)
            if now - self._leaving[name] >= self._linger_s:
                del self._leaving[name], self._current[name]
                self._drop(name)

    def _is_due(self, served: Served) -> bool:
        # One that came back while it was leaving is published anew, so that nothing of its leaving stays.
        back = served.name in self._leaving
        if not back and not self._is_new(served, self._current.get(served.name)):
            return False
        return time.monotonic() - self._failed.get(served, -_RETRY_S) >= _RETRY_S

    def _try(self, served: Served) -> RetidermError | None:
        old = self._current.get(served.name)
        try:
            self._publish(served, self._load(served))
        except Exception as raised:
            # Whatever one bundle's trouble is (no permission, a model that the runtime can't read), the other
            # tasks are looked at as well.
            error = _as_ours(raised, served)
            self._failed[served] = time.monotonic()
            kept = f"; version {old.version} serves on" if old else ""
            _LOG.error(
                "%s version %s may not serve%s: %s",
                served.name,
                served.version,
                kept,
                error,
                exc_info=None if error is raised else raised,
            )
            self._on_outcome(served.name, "refused")
            return error
        self._current[served.name] = served
        self._failed.pop(served, None)
        self._leaving.pop(served.name, None)
        _LOG.info("%s serves version %s (%s)", served.name, served.version, served.digest[:19])
        self._on_outcome(served.name, "served")
        return None


def _as_ours(error: Exception, served: Served) -> RetidermError:
    if isinstance(error, RetidermError):
        return error
    wrapped = ServingError(
        f"{served.name} version {served.version} can't be loaded ({type(error).__name__}: {error}).",
        hint="See that the server may read its folder, and that this release can run it.",
    )
    wrapped.__cause__ = error
    return wrapped
