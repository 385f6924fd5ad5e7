"""Models: which version serves, which waits, what the gate said; approve, promote, roll back."""

from __future__ import annotations

import json
import tempfile
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from data.errors import NotAllowed, ServingError
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.gateway import Gateway
from serving.gateway.loop.comparison import compare_answers
from serving.gateway.routing import Who, allow
from serving.gateway.systems.v1.common import In, refusals

TaskName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,9}$|^challenger$")]


class Served(BaseModel):
    """A task as it is served now, champion and challenger by the models' own metadata."""

    task: str
    champion: dict[str, Any] | None
    challenger: dict[str, Any] | None


class Compared(BaseModel):
    """Where champion and challenger answered the same images: how often they agree, and who is right.

    ``labelled`` are those of them that readers have labelled; ``champion`` and ``challenger`` the versions.
    """

    champion: str | None
    challenger: str | None
    images: int
    agree: int
    labelled: int
    champion_right: int
    challenger_right: int


class TaskModels(BaseModel):
    """Everything about a task's models. ``registry_away`` says why there is no ``registry``."""

    served: Served
    compared: Compared
    registry: dict[str, Any] | None
    registry_away: str | None


class Decision(In):
    """A person's decision, and why: both go into the ledger."""

    version: Version | None = None
    why: str = Field(min_length=3, max_length=500)


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/review/api/models", responses=refusals(502, 503))
    @allow(Role.REVIEWER)
    async def list_models() -> list[Served]:
        """Every task that is served, with its challenger."""
        names = [name for name in await gateway.models.names() if not name.endswith("-challenger")]
        return [await _served(gateway, name) for name in names]

    @router.get("/review/api/models/{task}", responses=refusals(404, 503))
    @allow(Role.REVIEWER)
    async def get_models(who: Who, task: TaskName) -> TaskModels:
        """One task: what serves, what waits and what the gate said, its history, and the two side by side."""
        served = await _served(gateway, task)
        compared = await gateway.run(compare_answers, gateway.store, who.tenant, task)
        registry, away = None, None
        try:
            versions = await gateway.registry.read("list", task)
            history = await gateway.registry.read("history", task, "--all")
            registry = {"versions": versions, "ledger": history[-50:]}
        except ServingError as error:
            away = error.message
        return TaskModels(
            served=served,
            compared=Compared.model_validate(compared.to_dict()),
            registry=registry,
            registry_away=away,
        )

    @router.post("/review/api/models/{task}/approve", responses=refusals(403, 409, 503))
    @allow(Role.REVIEWER)
    async def approve(who: Who, task: TaskName, given: Decision) -> dict[str, Any]:
        """Approve a version, where its task asks for a person's approval before it may be promoted."""
        return await _decide(gateway, who, "approve", task, given.version or "challenger", why=given.why)

    @router.post("/review/api/models/{task}/promote", responses=refusals(403, 409, 503))
    @allow(Role.REVIEWER)
    async def promote(who: Who, task: TaskName, given: Decision) -> dict[str, Any]:
        """Let a version serve that the gate accepted. It takes effect without a lost request.

        How it answered beside the champion goes into the ledger with it.
        """
        version = given.version or "challenger"
        compared = await gateway.run(compare_answers, gateway.store, who.tenant, task)
        with tempfile.NamedTemporaryFile("w", prefix="retiderm-", suffix=".json") as file:
            seen: tuple[str, ...] = ()
            if compared.images and version in ("challenger", compared.challenger):
                json.dump(compared.to_dict(), file)
                file.flush()
                seen = ("--comparison", file.name)
            return await _decide(gateway, who, "promote", task, version, *seen, why=given.why)

    @router.post("/review/api/models/{task}/rollback", responses=refusals(403, 409, 503))
    @allow(Role.REVIEWER)
    async def rollback(who: Who, task: TaskName, given: Decision) -> dict[str, Any]:
        """Go back to what served before."""
        to = ("--to", given.version) if given.version is not None else ()
        return await _decide(gateway, who, "rollback", task, *to, why=given.why)


async def _served(gateway: Gateway, task: str) -> Served:
    champion = await gateway.models.describe(task)
    challenger = await gateway.models.describe(f"{task}-challenger")
    return Served(task=task, champion=champion, challenger=challenger)


async def _decide(
    gateway: Gateway, who: Identity, verb: str, task: str, *words: str, why: str
) -> dict[str, Any]:
    """Models are all tenants' alike: those of the gateway's own decide for them.

    Raises:
        NotAllowed: the token is another tenant's.
    """
    if who.tenant != gateway.tenant:
        raise NotAllowed("What serves is decided by readers of this gateway's own tenant.")
    found = await gateway.registry.change(verb, task, *words, "--why", why, "--who", who.subject)
    return found if isinstance(found, dict) else {"result": found}
