"""S3, the face scan: init, upload, a job that analyses, status, results, history (contract S3)."""

from __future__ import annotations

from fastapi import APIRouter

from data.errors import ImageError
from serving.gateway.errors import TooLarge, Wire, WrongType
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router
from serving.gateway.systems.s3 import routes
from serving.gateway.systems.s3.work import FaceScans
from serving.scan import ACNE, CONDITION

__all__ = ["SYSTEM"]


def _build(gateway: Gateway) -> APIRouter:
    router = new_router(gateway, SYSTEM)
    work = FaceScans(gateway)
    gateway.jobs.register(work.kind, work.analyse, work.give_up)
    routes.add_routes(router, gateway, work.kind)
    return router


def _translate(error: Exception, wire: Wire) -> Wire | None:
    # Its clients know 400 for every file that it doesn't take, too large ones among them.
    if isinstance(error, ImageError | TooLarge | WrongType):
        return Wire(400, wire.code, wire.message, wire.hint)
    return None


SYSTEM = System(
    "s3",
    "Face scan",
    _build,
    lambda _: (ACNE.task, CONDITION.task),
    headers=("authorization",),
    token_kind="bearer",
    translate=_translate,
)
