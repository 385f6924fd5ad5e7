"""The review page and its routes: readers look at what models doubt, and say what they see."""

from __future__ import annotations

from fastapi import APIRouter

from serving.gateway.errors import own_shape
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router

__all__ = ["SYSTEM"]


def _build(gateway: Gateway) -> APIRouter:
    from serving.gateway.systems.review import (
        batches,
        drift,
        entries,
        labels,
        pages,
        queue,
        registry,
        session,
    )

    router = new_router(gateway, SYSTEM)
    for part in (session, queue, entries, batches, labels, drift, registry, pages):
        part.add_routes(router, gateway)
    return router


SYSTEM = System(
    "review",
    "Review page: the queue, labels, batches, models",
    _build,
    lambda _: (),
    headers=("authorization", "x-api-key", "cookie"),
    shape=own_shape,
)
