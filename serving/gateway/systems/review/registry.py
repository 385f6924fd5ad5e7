"""Models: which version serves, which waits, what the gate said; approve, promote, roll back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from data.errors import Conflict, NotAllowed, ServingError
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.front import take_time
from serving.gateway.gateway import Gateway
from serving.gateway.loop.comparison import compare_answers
from serving.gateway.routing import Who, allow
from serving.gateway.systems.v1.common import In, refusals

#: Of a ledger's entry, what the page shows to everybody.
_SHOWN = ("action", "step", "rules", "champion", "line", "decision")
TaskName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_DECIDED: dict[int | str, dict[str, Any]] = {
    202: {"description": "It is being carried out still: the ledger will say how it ended."},
    **refusals(403, 409, 503),
}
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
            if who.tenant != gateway.tenant:
                registry = without_people(registry)
        except ServingError as error:
            away = error.message
        return TaskModels(
            served=served,
            compared=Compared.model_validate(compared.to_dict()),
            registry=registry,
            registry_away=away,
        )

    @router.post("/review/api/models/{task}/approve", responses=_DECIDED)
    @allow(Role.REVIEWER)
    async def approve(
        request: Request, response: Response, who: Who, task: TaskName, given: Decision
    ) -> dict[str, Any]:
        """Approve a version, where its task asks for a person's approval before it may be promoted."""
        _decides(gateway, who)
        version = await _numbered(gateway, task, given.version or "challenger")
        return await _decide(gateway, who, request, response, "approve", task, version, why=given.why)

    @router.post("/review/api/models/{task}/promote", responses=_DECIDED)
    @allow(Role.REVIEWER)
    async def promote(
        request: Request, response: Response, who: Who, task: TaskName, given: Decision
    ) -> dict[str, Any]:
        """Let a version serve that the gate accepted. It takes effect without a lost request.

        How it answered beside the champion goes into the ledger with it.
        """
        _decides(gateway, who)
        version = await _numbered(gateway, task, given.version or "challenger")
        compared = await gateway.run(compare_answers, gateway.store, who.tenant, task)
        files = (
            {"--comparison": compared.to_dict()} if compared.images and version == compared.challenger else {}
        )
        return await _decide(
            gateway, who, request, response, "promote", task, version, why=given.why, files=files
        )

    @router.post("/review/api/models/{task}/rollback", responses=_DECIDED)
    @allow(Role.REVIEWER)
    async def rollback(
        request: Request, response: Response, who: Who, task: TaskName, given: Decision
    ) -> dict[str, Any]:
        """Go back to a version, or to what served before. What serves already changes nothing."""
        to = ("--to", given.version) if given.version is not None else ()
        return await _decide(gateway, who, request, response, "rollback", task, *to, why=given.why)


def without_people(registry: Mapping[str, Any]) -> dict[str, Any]:
    """The registry as other tenants see it: what happened when, without who decided, why, and on what."""
    versions = [
        {
            **one,
            "gate": {
                **one["gate"],
                "approved_by": "this gateway's tenant" if one["gate"]["approved_by"] else None,
            },
            "tags": {key: value for key, value in one["tags"].items() if key == "gate.reasons"},
        }
        for one in registry["versions"]
    ]
    # A gate's reasons are its measurements.
    ledger = [
        {
            **one,
            "who": "",
            "why": one["why"] if one["event"] == "gate" else "",
            "data": {key: value for key, value in one["data"].items() if key in _SHOWN},
        }
        for one in registry["ledger"]
    ]
    return {"versions": versions, "ledger": ledger}


async def _served(gateway: Gateway, task: str) -> Served:
    champion = await gateway.models.describe(task)
    challenger = await gateway.models.describe(f"{task}-challenger")
    return Served(task=task, champion=champion, challenger=challenger)


async def _numbered(gateway: Gateway, task: str, version: str) -> str:
    """A version's number: what an alias names may be another version by the time that the command runs.

    Raises:
        Conflict: no version has the alias.
    """
    if version.isdigit():
        return version
    gateway.registry.forget()
    for one in await gateway.registry.read("list", task):
        if version in one["aliases"]:
            return str(one["version"])
    raise Conflict(f"No version of {task} is {version}.", hint="Name a version.")


def _decides(gateway: Gateway, who: Identity) -> None:
    """Models are all tenants' alike: those of the gateway's own decide for them.

    Raises:
        NotAllowed: the token is another tenant's.
    """
    if who.tenant != gateway.tenant:
        raise NotAllowed("What serves is decided by readers of this gateway's own tenant.")


async def _decide(
    gateway: Gateway,
    who: Identity,
    request: Request,
    response: Response,
    *words: str,
    why: str,
    files: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Have the registry carry it out; 202 where that takes longer than an answer may."""
    _decides(gateway, who)
    take_time(request.scope)
    found = await gateway.registry.change(*words, "--why", why, "--who", who.subject, files=files)
    if not isinstance(found, dict):
        return {"result": found}
    if found.get("under_way"):
        response.status_code = 202
    return found
