"""S2, diabetic retinopathy: patients, their fundus photographs graded, and their histories (contract S2)."""

from __future__ import annotations

from fastapi import APIRouter

from data.errors import ImageError, ImageTooLarge
from serving.gateway.errors import Wire
from serving.gateway.gateway import Gateway
from serving.gateway.routing import System, new_router
from serving.gateway.systems.s2 import patients, predict
from serving.gateway.systems.s2.grade import TASK

__all__ = ["SYSTEM"]


def _build(gateway: Gateway) -> APIRouter:
    # Old clients' JSON may come without a Content-Type. Who may send it is decided at the door all the same.
    router = new_router(gateway, SYSTEM, strict_content_type=False)
    predict.add_routes(router, gateway)
    patients.add_routes(router, gateway)
    return router


def _translate(error: Exception, wire: Wire) -> Wire | None:
    """A bad image is 400 here, and the sentence says why: damaged, no image, or too blurred to grade."""
    if isinstance(error, ImageError) and not isinstance(error, ImageTooLarge):
        return Wire(400, wire.code, str(error))
    return None


SYSTEM = System(
    "s2",
    "Diabetic retinopathy: patients, grades, histories",
    _build,
    lambda _: (TASK,),
    translate=_translate,
)
