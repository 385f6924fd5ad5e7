"""Everything that the routes share, opened once and closed in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from data.errors import UsageError
from data.image import DecodeLimits
from data.provenance import versions
from serving.gateway.access import Gate
from serving.gateway.blobs import BlobStore
from serving.gateway.body import Bodies
from serving.gateway.held import Held
from serving.gateway.jobs import Jobs
from serving.gateway.loop.challenge import Challengers
from serving.gateway.loop.drift import Watch
from serving.gateway.loop.patrol import Patrol
from serving.gateway.loop.policy import QueuePolicy
from serving.gateway.loop.registry import RegistryAway, RegistryCommand
from serving.gateway.models import Models
from serving.gateway.rates import Limiter, Places
from serving.gateway.retention import Eraser, LearnedVersion
from serving.gateway.settings import Settings
from serving.gateway.store import unscoped
from serving.gateway.store.engine import Store
from serving.gateway.upkeep import Upkeep

#: Of this program. In an image that only holds its folders, nobody can say.
VERSION = versions("retiderm").get("retiderm", "unknown")
#: Requests of one client; half of what the gateway takes at once.
_AT_ONCE = 128
#: At a stop: how long each part has to end, and all work on threads.
_PART_S, _THREADS_S = 9.0, 5.0
_LOG = logging.getLogger("retiderm.gateway")
_T = TypeVar("_T")


class Part(Protocol):
    """Something that a system brings along, opened after the gateway's own and closed before it."""

    async def start(self) -> None:
        """Open it, on the application's event loop."""
        ...

    async def stop(self) -> None:
        """Close it."""
        ...


class Gateway:
    """The store, the images, the models, the queue and the limits of one gateway.

    ``models`` is there between :meth:`start` and :meth:`stop`, which belong to the application's event loop.
    """

    def __init__(
        self, settings: Settings, *, store: Store | None = None, blobs: BlobStore | None = None
    ) -> None:
        self.settings = settings
        self.store = store or settings.open_store()
        self.blobs = blobs or settings.open_blobs()
        self.tenant: str = unscoped.ensure_tenant(self.store, settings.tenant).id
        self.gate = Gate(self.store, static_key=settings.api_key, static_tenant=self.tenant)
        self.eraser = Eraser(self.store, self.blobs)
        self.policy = QueuePolicy(
            settings.queue_unusual, settings.queue_audit, settings.queue_readers, settings.queue_near
        )
        self.limiter = Limiter(settings.requests_per_minute)
        self.places = Places(_AT_ONCE)
        self.bodies = Bodies()
        # One client may hold half, and anybody one body or image.
        one = max(settings.max_body_bytes, settings.max_image_bytes)
        most = max(settings.max_held_bytes, one)
        self.held = Held(most, max(most // 2, one))
        self.image_limits = DecodeLimits(settings.max_image_bytes, settings.max_image_pixels)
        self.challengers = Challengers(lambda: self.models, self.store, self.policy, self.held)
        self.watch = Watch(self.store, settings.serving_root)
        self.patrol = Patrol(self.watch, self._tenants, settings.drift_minutes)
        self.registry = RegistryCommand(settings.registry_command)
        self.upkeep = Upkeep(self.eraser, self._tenants, settings.retention_days, self._learned_from)
        self.jobs = Jobs(self)
        self.parts: dict[str, Part] = {}
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="gateway")
        self._image_threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="images")
        self._working: set[Future[Any]] = set()
        self._models: Models | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def models(self) -> Models:
        """The models, once the application runs."""
        if self._models is None:
            raise RuntimeError("the gateway was not started")
        return self._models

    async def run(self, work: Callable[..., _T], *args: object) -> _T:
        """Do blocking work on a thread of the gateway's own."""
        return await self._on(self._threads, work, *args)

    async def run_images(self, work: Callable[..., _T], *args: object) -> _T:
        """Do work with the image store on threads that nothing else needs: it may be slow to fail."""
        return await self._on(self._image_threads, work, *args)

    async def _on(self, threads: ThreadPoolExecutor, work: Callable[..., _T], *args: object) -> _T:
        future = threads.submit(work, *args)
        # Whoever waits for it may be cancelled; the thread is not.
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # It holds the error, whose traceback holds this frame and the request's body: a circle, in which
            # the body would stay until the collector comes by, held though nobody counts it any more.
            del future

    async def start(self) -> None:
        """Open the way to the models, start the queue, and go on with what a crash cut off."""
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        self._models = Models(settings.models_url, settings.model_s, settings.model_tasks)
        await self.jobs.start()
        for part in self.parts.values():
            await part.start()
        self.patrol.start(self.run)
        self.upkeep.start(self.run)

    async def stop(self) -> None:
        """Let work end, for some seconds, then close everything.

        What doesn't end (an image store that hangs, a judgement of drift) is cut off with the process: that
        harms no more than a crash. :attr:`working` tells of it.
        """
        for name, end in self._ends():
            try:
                async with asyncio.timeout(_PART_S):
                    await end()
            except TimeoutError:
                _LOG.warning("at the stop, %s did not end within %g s", name, _PART_S)
        for threads in (self._threads, self._image_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + _THREADS_S
        while self._working and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.store.close()

    @property
    def working(self) -> int:
        """How many threads are at work that nobody waits for any longer, after :meth:`stop`."""
        return len(self._working)

    def _ends(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        yield "upkeep", self.upkeep.stop
        yield "patrol", self.patrol.stop
        yield "jobs", self.jobs.stop
        yield "challengers", self.challengers.stop
        for name in reversed(self.parts):
            yield name, self.parts[name].stop
        if self._models is not None:
            yield "models", self._models.close

    def _learned_from(self, contents: Sequence[str]) -> Mapping[str, Sequence[LearnedVersion]]:
        """Ask the registry, from a thread. At a stop its process is ended."""
        assert self._loop is not None
        asked = asyncio.run_coroutine_threadsafe(self.registry.learned(contents), self._loop)
        while True:
            try:
                return asked.result(timeout=0.5)
            except TimeoutError:
                if asked.done():
                    raise
                if self.eraser.stopped:
                    asked.cancel()
                    raise RegistryAway("The gateway stops.") from None

    def _tenants(self) -> list[str]:
        return [tenant.id for tenant in unscoped.all_tenants(self.store)]


def check_exposure(gateway: Gateway) -> str | None:
    """What to say at the start about a gateway that nobody has a token for.

    Raises:
        UsageError: it would listen beyond this machine, and there is neither a token nor a switch for that.
    """
    settings = gateway.settings
    if settings.api_key or unscoped.has_tokens(gateway.store):
        return None
    if not settings.on_loopback and not settings.open_access_anywhere:
        raise UsageError(
            f"There is no token, so the gateway won't listen on {settings.host}.",
            hint="Make one: retiderm token create NAME. Or listen on 127.0.0.1.",
        )
    return "No token is configured: this gateway listens on loopback only. Make one: retiderm token create."
