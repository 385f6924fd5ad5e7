"""Drift judged by the clock, and whenever somebody asks, as Prometheus gauges that say what the page says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable

from data.errors import RetidermError
from serving.core.drift import SEVERITIES, DriftReport
from serving.core.drift.gauges import publish
from serving.gateway.loop.drift import Standing, Watch

_LOG = logging.getLogger("retiderm.gateway")

#: Does blocking work elsewhere than on the event loop.
Run = Callable[[Callable[[], None]], Awaitable[None]]


class Patrol:
    """Looks at once, then every ``minutes``; never with 0. What fails is logged once, and tried again.

    A model has one set of gauges whatever the number of tenants: those of the tenant whose window is gravest.
    """

    def __init__(self, watch: Watch, tenants: Callable[[], Iterable[str]], minutes: float) -> None:
        self._watch, self._tenants, self._minutes = watch, tenants, minutes
        self._told: dict[str, str] = {}
        #: Of each task, each tenant's newest; none until the first look at all of them.
        self._found: dict[str, dict[str, Standing]] = {}
        self._publishing = threading.Lock()
        self._running: asyncio.Task[None] | None = None

    def start(self, run: Run) -> None:
        """Begin, on the running event loop."""
        if self._minutes:
            self._running = asyncio.create_task(self._go(run))

    async def stop(self) -> None:
        """End. A judgement that runs on its thread ends by itself."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def ask(self, tenant: str, task: str) -> Standing:
        """What stands for one tenant, now; the gauges follow. Takes seconds for a version's first window.

        Raises:
            NotFound: the bundle that serves is not within reach, or has no reference.
        """
        found = self._watch.standing(tenant, task)
        with self._publishing:
            if task in self._found:
                self._found[task][tenant] = found
                self._publish(task, found.version)
        return found

    def look(self) -> None:
        """Judge every task that is promoted and has answers. Takes seconds for a version's first window."""
        try:
            tasks = self._watch.tasks()
            tenants = list(self._tenants())
        except RetidermError as error:
            self._tell("", error.code, f"what is promoted can't be read: {error.message}")
            return
        self._told.pop("", None)
        for task, version in tasks.items():
            try:
                found = {one: self._watch.standing(one, task) for one in self._answered(task, tenants)}
                with self._publishing:
                    self._found[task] = found
                    self._publish(task, version)
            except RetidermError as error:
                self._tell(task, error.code, f"the drift of {task} can't be judged: {error.message}")
            except Exception as error:
                name = type(error).__name__
                self._tell(task, name, f"the drift of {task} can't be judged ({name})", error)
            else:
                self._told.pop(task, None)

    def _answered(self, task: str, tenants: Iterable[str]) -> list[str]:
        # A reference takes a second to open: not for a model that nobody has asked.
        return [tenant for tenant in tenants if self._watch.answered(tenant, task)]

    def _publish(self, task: str, version: str) -> None:
        # One that was promoted while others were judged is shown at the next look.
        found = [one.report for one in self._found[task].values() if one.version == version]
        if found:
            publish(max(found, key=_gravity), version=version)

    def _tell(self, about: str, code: str, text: str, error: Exception | None = None) -> None:
        if self._told.get(about) != code:
            self._told[about] = code
            _LOG.warning(text, exc_info=error)

    async def _go(self, run: Run) -> None:
        while True:
            try:
                await run(self.look)
            except Exception as error:
                name = type(error).__name__
                self._tell("", name, f"drift can't be judged ({name})", error)
            await asyncio.sleep(60 * self._minutes)


def _gravity(report: DriftReport) -> tuple[int, int]:
    return SEVERITIES.index(report.severity) if report.alarm else 0, report.images
