"""The predictor's server: every promoted task, or one bundle, swapped without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serving.engine import Engine, load_engine
from serving.kserve_ext.gate import Gate, Workers
from serving.kserve_ext.metadata import metadata_router
from serving.kserve_ext.server import Server, ServerSettings
from serving.metrics import gone, serves, swapped
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
    linger_s: float = 20.0


def run(source: Source, server: ServerSettings, settings: PredictorSettings) -> None:
    """Serve until told to stop.

    Raises:
        ServingError: nothing may serve, or the ports are taken.
    """
    gate = Gate("predictor", settings.workers + settings.max_waiting)
    workers = Workers("inference", settings.workers)
    following: list[asyncio.Task[None]] = []

    def load(served: Served) -> PredictorModel:
        engine = _loaded(served, app.registered_models.get_models().values())
        if engine is None:
            engine = load_engine(served, precision=settings.precision, threads=settings.threads)
            _give_back()
        return PredictorModel(served, engine, gate, workers, settings.max_batch)

    def publish(served: Served, model: PredictorModel) -> None:
        # One dictionary entry is replaced: a request has the old model or the new one, never none.
        app.registered_models.update(model)
        serves(served.name, served.version, served.digest, model.info.precision)

    def drop(name: str) -> None:
        # Requests that are in flight keep the model until they are answered.
        app.registered_models.get_models().pop(name, None)
        gone(name)

    watcher = Watcher(
        source,
        load,
        publish,
        interval_s=settings.interval_s,
        on_outcome=swapped,
        drop=drop,
        linger_s=settings.linger_s,
        # Which share of the requests it is asked is nothing to a model.
        is_new=lambda served, old: not served.same_model(old),
    )

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


def _loaded(served: Served, models: Iterable[Any]) -> Engine | None:
    """The engine of a bundle that answers here already under another name: it was proved when it was loaded.

    So a challenger that is promoted takes over at once, and its model is in memory once.
    """
    for model in list(models):
        engine: Engine = model.engine_of
        if engine.served.bundle == served.bundle and model.name != served.name:
            return engine
    return None


def _give_back() -> None:
    """Hand back what loading has freed: for a ResNet-50 130 of 480 MiB, which glibc would keep."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
