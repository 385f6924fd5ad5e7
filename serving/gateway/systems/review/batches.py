"""Batches: entries chosen from the queue by a strategy, so that a reader's time goes where it helps most."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from data.errors import Conflict
from serving.core.selection import MIXES, STRATEGIES, select
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.gateway import Gateway
from serving.gateway.loop.pool import pool_of
from serving.gateway.routing import Who, allow
from serving.gateway.store.repositories import queue
from serving.gateway.store.tables import Batch as Row
from serving.gateway.systems.v1.common import (
    After,
    Id,
    In,
    Limit,
    Page,
    Task,
    page_of,
    refusals,
    start_of,
)

_POOL = 1000

# Told in the schema alone: select refuses other names itself, and says which there are.
_ALONE = "|".join(sorted(STRATEGIES))
_STRATEGY = rf"^({_ALONE}|({'|'.join(sorted(MIXES))})\(({_ALONE})\))$"


class BatchIn(In):
    """What to choose: how many, by which strategy, from which seed."""

    task: Task
    head: str | None = Field(default=None, max_length=200, description="Of several heads; by default all.")
    strategy: str = Field(
        default="margin",
        max_length=100,
        description=f"{', '.join(sorted(STRATEGIES))}; or one inside {' or '.join(sorted(MIXES))}(…).",
        examples=["margin", "class_balanced(margin)"],
        json_schema_extra={"pattern": _STRATEGY},
    )
    size: int = Field(default=20, ge=1, le=_POOL)
    seed: int = Field(default=0, ge=0, le=2**31)
    readers: int = Field(default=1, ge=1, le=2)


class Batch(BaseModel):
    """Chosen entries, in their order, and all that it takes to choose them again."""

    id: uuid.UUID
    task: str
    head: str
    strategy: str
    seed: int
    size: int
    pool_digest: str
    entries: list[uuid.UUID]
    made_by: str
    created_at: dt.datetime


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.post("/review/api/batches", status_code=201, responses=refusals(400, 404, 409, 422))
    @allow(Role.REVIEWER)
    async def make_batch(who: Who, given: BatchIn) -> Batch:
        """Choose from what waits (the thousand most urgent) and is in no batch yet."""
        return await gateway.run(_make, gateway, who, given)

    @router.get("/review/api/batches", responses=refusals(422))
    @allow(Role.REVIEWER)
    async def list_batches(
        who: Who,
        task: Annotated[Task | None, Query()] = None,
        newest: Annotated[bool, Query(description="The newest first, without `after`.")] = False,
        after: After = None,
        limit: Limit = 50,
    ) -> Page[Batch]:
        """Every batch, oldest first; or the newest of them."""

        def read() -> Page[Batch]:
            with gateway.store.read(who.tenant, who.actor, paged=True) as scope:
                rows = queue.batches(scope, task=task, after=start_of(after), newest=newest, limit=limit + 1)
            return page_of(scope, rows[:limit] if newest else rows, limit, _shown, lambda row: row.number)

        return await gateway.run(read)

    @router.get("/review/api/batches/{batch_id}", responses=refusals(404))
    @allow(Role.REVIEWER)
    async def get_batch(who: Who, batch_id: Id) -> Batch:
        """One batch."""

        def read() -> Batch:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return _shown(queue.batch(scope, str(batch_id)))

        return await gateway.run(read)


def _make(gateway: Gateway, who: Identity, given: BatchIn) -> Batch:
    with gateway.store.read(who.tenant, who.actor) as scope:
        pool = pool_of(
            scope,
            given.task,
            how=given.strategy,
            head=given.head,
            most=_POOL,
            learned=lambda digest: gateway.watch.learned(given.task, digest),
        )
    if not len(pool):
        raise Conflict(f"Nothing of {given.task!r} waits that is in no batch.", hint="Look at the queue.")
    # Seconds for some strategies: outside of any transaction.
    chosen = select(pool, given.strategy, min(given.size, len(pool)), given.seed)
    with gateway.store.write(who.tenant, who.actor) as scope:
        row = queue.add_batch(
            scope,
            task=given.task,
            head=given.head or "",
            strategy=given.strategy,
            seed=given.seed,
            pool_digest=chosen.pool.removeprefix("sha256:"),
            entries=chosen.ids,
            made_by=who.subject,
            readers_needed=given.readers,
        )
        return _shown(row)


def _shown(row: Row) -> Batch:
    return Batch(
        id=uuid.UUID(row.id),
        task=row.task,
        head=row.head,
        strategy=row.strategy,
        seed=row.seed,
        size=row.size,
        pool_digest=row.pool_digest,
        entries=[uuid.UUID(key) for key in row.entries],
        made_by=row.made_by,
        created_at=row.created_at,
    )
