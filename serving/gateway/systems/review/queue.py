"""What waits for readers: the list, and how much there is."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.loop.agreement import agreements
from serving.gateway.loop.answers import labels_of
from serving.gateway.loop.policy import WEIGHTS
from serving.gateway.models import titles_of
from serving.gateway.routing import Who, allow
from serving.gateway.store.repositories import labels, predictions, queue
from serving.gateway.store.repositories.queue import Place
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import QueueEntry
from serving.gateway.systems.v1.common import Limit, Task, refusals

State = Literal["waiting", "adjudicate", "done", "skipped"]
PlaceText = Annotated[str | None, Query(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?_[0-9]{1,18}$")]
_MOST_PAIRS = 1000


class Listed(BaseModel):
    """An entry in the list. ``labels`` are the model's, by head."""

    id: uuid.UUID
    task: str
    state: State
    reasons: list[str]
    priority: float
    labels: dict[str, str]
    confidence: float | None
    readers_needed: int
    batch_id: uuid.UUID | None
    created_at: dt.datetime
    place: str = Field(
        description="Give it as `after` for what follows it, as `before` for what precedes it."
    )


class Queue(BaseModel):
    """A page of the queue. ``counts`` are of all entries, or of the batch's, by task and state."""

    items: list[Listed]
    next: str | None = Field(description="Give it as `after` for what follows; null on the last page.")
    counts: dict[str, dict[str, int]]


class Agreement(BaseModel):
    """How two readers agree on a head. ``kappa`` is Cohen's; null where there is nothing to tell."""

    head: str
    pairs: int
    equal: int
    kappa: float | None


def state_word(text: str) -> State:
    """A row's state: the table allows no other."""
    return cast(State, text)


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/review/api/queue", responses=refusals(404, 422))
    @allow(Role.REVIEWER)
    async def list_queue(
        who: Who,
        task: Annotated[Task | None, Query()] = None,
        state: Annotated[State, Query()] = "waiting",
        reason: Annotated[str | None, Query(pattern=f"^({'|'.join(WEIGHTS)})$")] = None,
        batch_id: Annotated[uuid.UUID | None, Query()] = None,
        unread: Annotated[bool, Query(description="Only what this reader has not labelled.")] = False,
        after: PlaceText = None,
        before: PlaceText = None,
        limit: Limit = 50,
    ) -> Queue:
        """What waits, the most urgent first; before a place, the nearest first."""
        batch = str(batch_id) if batch_id else None

        def read() -> Queue:
            with gateway.store.read(who.tenant, who.actor) as scope:
                rows = queue.urgent(
                    scope,
                    task=task,
                    state=state,
                    reason=reason,
                    batch_id=batch,
                    after=Place.read(after) if after else None,
                    before=Place.read(before) if before else None,
                    unread_by=who.subject if unread else None,
                    limit=limit + 1,
                )
                shown = rows[:limit]
                following = str(Place.of(shown[-1])) if len(rows) > limit and before is None else None
                counts = queue.counts(scope, batch_id=batch)
                return Queue(items=_listed(scope, shown), next=following, counts=counts)

        return await gateway.run(read)

    @router.get("/review/api/agreement", responses=refusals(422))
    @allow(Role.REVIEWER)
    async def agreement(who: Who, task: Annotated[Task, Query()]) -> list[Agreement]:
        """How well pairs of readers agree, over the images that two have labelled (the newest thousand)."""

        def read() -> list[Agreement]:
            with gateway.store.read(who.tenant, who.actor) as scope:
                readings = labels.pairs(scope, task, limit=_MOST_PAIRS)
            return [
                Agreement(head=one.head, pairs=one.pairs, equal=one.equal, kappa=one.kappa)
                for one in agreements(readings)
            ]

        return await gateway.run(read)

    @router.get("/review/api/titles", responses=refusals(422))
    @allow(Role.REVIEWER)
    async def titles(who: Who, task: Annotated[Task, Query()]) -> dict[str, dict[str, str]]:
        """What people read for a task's classes, by head; none where its model is away or has names only."""
        return titles_of(await gateway.models.describe(task))


def _listed(scope: Scope, rows: list[QueueEntry]) -> list[Listed]:
    said = predictions.by_ids(scope, [row.prediction_id for row in rows])
    shown = []
    for row in rows:
        answer = said[row.prediction_id].answer if row.prediction_id in said else {}
        heads = answer.get("heads", {})
        shown.append(
            Listed(
                id=uuid.UUID(row.id),
                task=row.task,
                state=state_word(row.state),
                reasons=row.reasons,
                priority=row.priority,
                labels=labels_of(answer),
                confidence=min((head["confidence"] for head in heads.values()), default=None),
                readers_needed=row.readers_needed,
                batch_id=uuid.UUID(row.batch_id) if row.batch_id else None,
                created_at=row.created_at,
                place=str(Place.of(row)),
            )
        )
    return shown
