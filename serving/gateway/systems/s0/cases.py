"""``/cases`` and ``/cases/reject``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.errors import TooLarge
from serving.gateway.gateway import Gateway
from serving.gateway.once import Once, respond
from serving.gateway.openapi import KEYED, ONCE, errors
from serving.gateway.routing import Who, allow
from serving.gateway.store.checks import check_value
from serving.gateway.store.repositories import cases
from serving.gateway.store.repositories.idempotency import Answer as Said
from serving.gateway.store.types import about
from serving.gateway.systems.s0 import forms
from serving.gateway.systems.s0.doubts import follow

_MOST_BYTES = 2**20


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post("/cases", response_model=forms.Logged, responses=errors(*ONCE), openapi_extra=KEYED)
    @allow(Role.APP)
    async def log(request: Request, who: Who, case: forms.CaseIn) -> Response:
        """Log a case. Logged again, what was said last holds, and every document of it is kept."""
        return await _keep(gateway, request, who, case.key, rejected=False)

    @router.post("/cases/reject", response_model=forms.Logged, responses=errors(*ONCE), openapi_extra=KEYED)
    @allow(Role.APP)
    async def reject(request: Request, who: Who, case: forms.RejectionIn) -> Response:
        """Say that a case's answer is wrong. One that nobody logged yet begins with it."""
        return await _keep(gateway, request, who, case.key, rejected=True)


async def _keep(gateway: Gateway, request: Request, who: Identity, key: str, *, rejected: bool) -> Response:
    if len(await request.body()) > _MOST_BYTES:
        raise TooLarge(f"A case has more than {_MOST_BYTES:,} bytes.")
    # As it was sent: the form above only looked at it.
    payload: dict[str, Any] = await request.json()
    check_value(payload, "the case")
    once = Once.of(request, who, payload, hours=gateway.settings.idempotency_hours)

    def write() -> Said:
        with gateway.store.write(who.tenant, who.actor) as scope:
            if (earlier := once.claim(scope)) is not None:
                return earlier
            if rejected:
                cases.reject(scope, key, payload, by=who.subject)
            else:
                cases.log(scope, key, payload, by=who.subject)
            case = cases.get(scope, key)
            follow(scope, gateway, case, rejected=rejected)
            message = "rejected_logged" if rejected else "logged"
            body = {"status": "ok", "message": message, "case_id": key}
            return once.answer(scope, 200, body, about=about("case", case.id))

    return respond(await gateway.run(write))
