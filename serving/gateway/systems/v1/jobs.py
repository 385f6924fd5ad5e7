"""``/v1/jobs``: how far work is that goes on after its request."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.routing import Who, allow
from serving.gateway.store.repositories import jobs
from serving.gateway.systems.v1.common import Id, refusals


class Job(BaseModel):
    """A job's state. ``error`` is a code, where it failed; ``about`` names what it is for."""

    id: uuid.UUID
    kind: str
    about: str
    status: Literal["queued", "running", "done", "failed"]
    attempts: int
    error: str | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add it."""

    @router.get("/v1/jobs/{job_id}", responses=refusals(404))
    @allow(Role.APP, Role.REVIEWER)
    async def get_job(who: Who, job_id: Id) -> Job:
        """One job."""

        def read() -> Job:
            with gateway.store.read(who.tenant, who.actor) as scope:
                return Job.model_validate(jobs.get(scope, str(job_id)), from_attributes=True)

        return await gateway.run(read)
