"""/v1, our own: one consistent API over everything that the gateway keeps.

Ids are UUIDs, moments RFC 3339 in UTC, lists are pages (``?after=&limit=``), errors are
``{"error": {code, message, hint?, details?, request_id}}``. One module a noun.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends

from serving.gateway.errors import own_shape
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router
from serving.gateway.systems.v1 import (
    audit,
    cases,
    erasures,
    images,
    jobs,
    labels,
    models,
    patients,
    predictions,
)
from serving.gateway.systems.v1.common import said_once

__all__ = ["SYSTEM"]

_NOUNS = (models, images, predictions, patients, cases, labels, erasures, audit, jobs)


def _build(gateway: Gateway) -> APIRouter:
    router = new_router(gateway, SYSTEM, dependencies=[Depends(said_once)])
    for noun in _NOUNS:
        noun.add_routes(router, gateway)
    return router


# Its models are whatever is served: it is ready without any of them.
SYSTEM = System("v1", "Our own API", _build, lambda _: (), shape=own_shape)
