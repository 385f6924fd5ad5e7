"""What nobody asks for: erasures that were cut off go on, what is too old goes, leftovers are swept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from data.errors import RetidermError
from serving.gateway.retention import Eraser, LearnedFrom

_LOG = logging.getLogger("retiderm.gateway")
_LOOK_S = 300.0
_HOURLY_S = 3600.0
_DAILY_S = 24 * 3600.0
#: A gateway that has just begun has better things to do.
_FIRST_S = 600.0
#: A clock that goes so much faster than this process was set. What is too old is not a matter of a setting.
_LEAP_S = 3600.0

#: Does blocking work elsewhere than on the event loop.
Run = Callable[[Callable[[], None]], Awaitable[None]]


class Upkeep:
    """Looks after the store of every tenant, by the clock. What fails is logged and tried again.

    Several gateways of one store may do so at once. ``days`` is how long images, scans and cases are kept;
    None keeps them.
    """

    def __init__(
        self,
        eraser: Eraser,
        tenants: Callable[[], Iterable[str]],
        days: int | None,
        learned_from: LearnedFrom,
    ) -> None:
        self._eraser, self._tenants, self._days = eraser, tenants, days
        self._learned_from = learned_from
        self._running: asyncio.Task[None] | None = None
        self._told: dict[str, str] = {}
        self._hourly = self._daily = time.monotonic() + _FIRST_S
        self._clocks = (time.time(), time.monotonic())

    def start(self, run: Run) -> None:
        """Begin, on the running event loop."""
        self._running = asyncio.create_task(self._go(run))

    async def stop(self) -> None:
        """End. What runs on its thread ends after what it is at."""
        self._eraser.stop()
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def look(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        if self._leapt():
            self._daily = now + _DAILY_S
            _LOG.warning("the clock was set: nothing is erased for its age before tomorrow")
        hourly, daily = now >= self._hourly, now >= self._daily
        for tenant in self._tenants():
            self._try("resume", self.resume, tenant)
            if hourly:
                self._try("learned", self.ask, tenant)
            if daily:
                self._try("tidy", self.tidy, tenant)
        self._hourly = now + _HOURLY_S if hourly else self._hourly
        self._daily = now + _DAILY_S if daily else self._daily

    def resume(self, tenant: str) -> None:
        """Go on with erasures that a crash or an unreachable image store cut off."""
        for report in self._eraser.resume(tenant):
            if report.finished:
                _LOG.info("the erasure %s went on, and is finished", report.erasure_id)

    def ask(self, tenant: str) -> None:
        """Ask which model versions had learned from what was erased."""
        if count := self._eraser.ask(tenant, self._learned_from):
            _LOG.info("it is known now what models had learned from %d erasures", count)

    def tidy(self, tenant: str) -> None:
        """Erase what is too old, and sweep what has no row."""
        if self._days is not None and (reports := self._eraser.older(tenant, self._days)):
            images = sum(report.counts["images"] for report in reports)
            _LOG.info("%d images were erased: older than %d days", images, self._days)
        if swept := self._eraser.sweep(tenant):
            _LOG.info("%d contents without a row were swept", swept)

    def _try(self, name: str, work: Callable[[str], None], tenant: str) -> None:
        """Once for each kind of trouble, the log says so."""
        try:
            work(tenant)
        except Exception as error:
            code = error.code if isinstance(error, RetidermError) else type(error).__name__
            if self._told.get(name) != code:
                self._told[name] = code
                _LOG.warning("%s waits, and is tried again: %s", name, error if _ours(error) else code)
        else:
            self._told.pop(name, None)

    def _leapt(self) -> bool:
        wall, own = self._clocks
        self._clocks = (time.time(), time.monotonic())
        return (self._clocks[0] - wall) - (self._clocks[1] - own) > _LEAP_S

    async def _go(self, run: Run) -> None:
        while True:
            try:
                await run(self.look)
            except Exception as error:
                # The database is away, mostly.
                _LOG.warning("the store can't be looked after: %s", type(error).__name__)
            await asyncio.sleep(_LOOK_S)


def _ours(error: Exception) -> bool:
    return isinstance(error, RetidermError)
