"""``/v1/audit``: who did what, when; a chain that shows what was altered."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.routing import Who, allow
from serving.gateway.store.checks import check_text
from serving.gateway.store.repositories import audit
from serving.gateway.store.repositories.audit import Head
from serving.gateway.store.tables import AuditEntry as Row
from serving.gateway.systems.v1.common import After, Limit, Page, page_of, start_of

_Name = Annotated[str | None, Query(max_length=200)]


class AuditEntry(BaseModel):
    """One entry. ``hash`` covers all of it and ``prev``, the one before's hash; ``data`` names nobody."""

    seq: int
    at: dt.datetime
    actor: str
    action: str
    about: str
    data: dict[str, Any]
    prev: str
    hash: str


class Verified(BaseModel):
    """Whether the log is whole, to its entry ``seq``. Keep ``seq`` and ``hash`` elsewhere."""

    sound: bool
    seq: int
    hash: str
    problems: list[str]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/v1/audit")
    @allow(Role.ADMIN)
    async def list_entries(
        who: Who, about: _Name = None, action: _Name = None, after: After = None, limit: Limit = 100
    ) -> Page[AuditEntry]:
        """Entries in their order. ``about`` is ``<kind>:<id>``, as ``patient:7d5b1f9e-…``."""
        for name, text in (("about", about), ("action", action)):
            check_text(text or "", name)

        def read() -> Page[AuditEntry]:
            with gateway.store.read(who.tenant, who.actor) as scope:
                rows = audit.entries(
                    scope, about=about, action=action, after=start_of(after), limit=limit + 1
                )
                return page_of(scope, rows, limit, _shown, lambda row: int(row.seq))

        return await gateway.run(read)

    @router.get("/v1/audit/verify")
    @allow(Role.ADMIN)
    async def verify(
        who: Who,
        kept: Annotated[
            str | None,
            Query(
                pattern="^[1-9][0-9]{0,17}:[0-9a-f]{64}$",
                description="`<seq>:<hash>` of an earlier answer, kept elsewhere: it must be on this chain.",
            ),
        ] = None,
    ) -> Verified:
        """Go over the whole log. A tail that was cut off shows only against a hash that was kept."""
        places = {}
        if kept is not None:
            seq, _, hash_ = kept.partition(":")
            places["the place that was asked for"] = Head(int(seq), hash_)

        def read() -> Verified:
            with gateway.store.read(who.tenant, who.actor) as scope:
                head = audit.head(scope)
                problems = audit.verify(scope, places)
            return Verified(sound=not problems, seq=head.seq, hash=head.hash, problems=problems)

        return await gateway.run(read)


def _shown(row: Row) -> AuditEntry:
    return AuditEntry(
        seq=row.seq,
        at=row.at,
        actor=row.actor,
        action=row.action,
        about=row.about,
        data=audit.data_of(row),
        prev=row.prev,
        hash=row.hash,
    )
