"""The predictor's server: every promoted task, or one bundle, swapped without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from dataclasses import dataclass

from serving.engine import load_engine
from serving.kserve_ext.gate import Gate, Workers
from serving.kserve_ext.metadata import metadata_router
from serving.kserve_ext.server import Server, ServerSettings
from serving.metrics import serves, swapped
from serving.predictor.model import PredictorModel
from serving.source import Served, Source
from serving.watch import Watcher


@dataclass(frozen=True, slots=True)
class PredictorSettings:
    """How much a predictor does at once. ``threads`` of None is the container's CPU quota.

    ``precision`` is one of the cards' approved ones, or ``auto``: what ``retiderm tune`` chose on this kind
    of host, else fp32.
    """

    precision: str = "auto"
    threads: int | None = None
    workers: int = 1
    max_waiting: int = 32
    max_batch: int = 32
    interval_s: float = 1.0


def run(source: Source, server: ServerSettings, settings: PredictorSettings) -> None:
    """Serve until told to stop.

    Raises:
        ServingError: nothing may serve, or the ports are taken.
    """
    gate = Gate("predictor", settings.workers + settings.max_waiting)
    workers = Workers("inference", settings.workers)
    following: list[asyncio.Task[None]] = []

    def load(served: Served) -> PredictorModel:
        engine = load_engine(served, precision=settings.precision, threads=settings.threads)
        _give_back()
        return PredictorModel(engine, gate, workers, settings.max_batch)

    def publish(served: Served, model: PredictorModel) -> None:
        # One dictionary entry is replaced: a request has the old model or the new one, never none.
        app.registered_models.update(model)
        serves(served.task, served.version, served.digest, model.info.precision)

    watcher = Watcher(source, load, publish, interval_s=settings.interval_s, on_outcome=swapped)

    async def ready() -> bool:
        return bool(app.registered_models.get_models())

    async def before() -> None:
        following.append(asyncio.create_task(watcher.run()))

    async def after() -> None:
        for task in following:
            task.cancel()
        workers.close()

    app = Server(server, is_ready=ready, before=before, after=after)
    app.add_router(metadata_router(app.registered_models))
    watcher.first()
    app.start([])


def _give_back() -> None:
    """Hand back what loading has freed: for a ResNet-50 130 of 480 MiB, which glibc would keep."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
