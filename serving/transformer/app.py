"""The transformer's server: every promoted task, or one bundle's, in front of one predictor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2

from data.image import DecodeLimits
from data.provenance import cpu_quota
from serving.kserve_ext.gate import Gate, Workers
from serving.kserve_ext.metadata import metadata_router
from serving.kserve_ext.server import Server, ServerSettings
from serving.metrics import swapped
from serving.preparing import Recipe, load_recipe
from serving.source import Served, Source
from serving.transformer.model import Shared, TransformerModel
from serving.transformer.upstream import PredictorClient
from serving.watch import Watcher


@dataclass(frozen=True, slots=True)
class TransformerSettings:
    """Where the predictor is and how much a transformer takes."""

    predictor: str = "127.0.0.1:8083"
    timeout_s: float = 30.0
    max_requests: int = 24
    max_batch: int = 32
    workers: int | None = None
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    interval_s: float = 1.0
    linger_s: float = 10.0


async def any_healthy(models: Sequence[TransformerModel]) -> bool:
    """Whether any model can answer. One that can't is not ready itself, and takes no other with it.

    A challenger counts only where it is alone, in a pod of its own.
    """
    models = [model for model in models if not model.challenges] or models
    return any(await asyncio.gather(*(model.healthy() for model in models)))


def run(source: Source, server: ServerSettings, settings: TransformerSettings) -> None:
    """Serve until told to stop.

    Raises:
        ServingError: nothing may serve, or the ports are taken.
    """
    # One image is too small to share out: OpenCV's own threads cost more than they give, and take the core
    # that the predictor computes on.
    cv2.setNumThreads(1)
    clients: list[PredictorClient] = []
    following: list[asyncio.Task[None]] = []
    workers = Workers("images", settings.workers or cpu_quota())

    def publish(served: Served, recipe: Recipe) -> None:
        known = app.registered_models.get_model(served.name)
        if known is None:
            app.registered_models.update(TransformerModel(recipe, shared))
        else:
            known.use(recipe)

    def leave(name: str) -> None:
        app.registered_models.get_models()[name].leave()

    def drop(name: str) -> None:
        app.registered_models.get_models().pop(name, None)

    watcher = Watcher(
        source,
        load_recipe,
        publish,
        interval_s=settings.interval_s,
        on_outcome=swapped,
        leave=leave,
        drop=drop,
        linger_s=settings.linger_s,
    )
    shared = Shared(
        client=lambda: clients[0],
        gate=Gate("transformer", settings.max_requests),
        workers=workers,
        limits=settings.limits,
        max_batch=settings.max_batch,
        look=watcher.refresh,
    )

    async def ready() -> bool:
        return await any_healthy(list(app.registered_models.get_models().values()))

    async def prove() -> None:
        # Nobody waits for a challenger's readiness, as a pod's probe does for a champion's.
        while True:
            await asyncio.sleep(settings.interval_s)
            for model in list(app.registered_models.get_models().values()):
                if model.challenges and not model.proved:
                    await model.healthy()

    async def before() -> None:
        clients.append(PredictorClient(settings.predictor, settings.timeout_s))
        following.extend(asyncio.create_task(each) for each in (watcher.run(), prove()))

    async def after() -> None:
        for task in following:
            task.cancel()
        await clients[0].close()
        workers.close()

    app = Server(server, is_ready=ready, before=before, after=after)
    app.add_router(metadata_router(app.registered_models))
    watcher.first()
    app.start([])
