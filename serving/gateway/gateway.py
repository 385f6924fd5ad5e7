"""Everything that the routes share, opened once and closed in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from data.errors import UsageError
from data.image import DecodeLimits
from data.provenance import versions
from serving.gateway.access import Gate
from serving.gateway.blobs import BlobStore
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
        self.policy = QueuePolicy(settings.queue_unusual, settings.queue_audit, settings.queue_readers)
        self.limiter = Limiter(settings.requests_per_minute)
        self.places = Places(_AT_ONCE)
        self.image_limits = DecodeLimits(settings.max_image_bytes, settings.max_image_pixels)
        self.challengers = Challengers(lambda: self.models, self.store, self.policy)
        self.watch = Watch(self.store, settings.serving_root)
        self.patrol = Patrol(self.watch, self._tenants, settings.drift_minutes)
        self.registry = RegistryCommand(settings.registry_command)
        self.upkeep = Upkeep(self.eraser, self._tenants, settings.retention_days, self._learned_from)
        self.jobs = Jobs(self)
        self.parts: dict[str, Part] = {}
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="gateway")
        self._image_threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="images")
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
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    async def run_images(self, work: Callable[..., _T], *args: object) -> _T:
        """Do work with the image store on threads that nothing else needs: it may be slow to fail."""
        return await asyncio.get_running_loop().run_in_executor(self._image_threads, work, *args)

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
        """Let work end, then close everything."""
        await self.upkeep.stop()
        await self.patrol.stop()
        await self.jobs.stop()
        await self.challengers.stop()
        for part in reversed(self.parts.values()):
            await part.stop()
        if self._models is not None:
            await self._models.close()
        for threads in (self._threads, self._image_threads):
            await asyncio.to_thread(threads.shutdown, wait=True)
        self.store.close()

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
