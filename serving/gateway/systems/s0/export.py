"""``/cases/export``: cases with their images and labels, as a zip made in a file and streamed from it."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from data.errors import Overloaded, RequestError
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.downloads import Download, built
from serving.gateway.front import take_time
from serving.gateway.gateway import Gateway
from serving.gateway.openapi import errors
from serving.gateway.routing import Who, allow
from serving.gateway.store.types import about
from serving.gateway.systems.s0 import forms
from serving.gateway.systems.s0.archive import Archive, Filters

_AT_ONCE = 2

_Word = Annotated[str | None, Query(min_length=1, max_length=forms.LONGEST, pattern=forms.NO_NUL)]
_Time = Annotated[
    str,
    WithJsonSchema(
        {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}
    ),
]
_Since = Annotated[
    _Time | None,
    Query(description="Cases changed since then: a date, or a date and time, in UTC unless it names a zone."),
]
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "images/, labels.csv and cases.jsonl.",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add it."""
    places = asyncio.Semaphore(_AT_ONCE)

    @router.get("/cases/export", response_class=Response, responses=_ZIP | errors(507))
    @allow(Role.REVIEWER)
    async def export(
        request: Request, who: Who, status: _Word = None, since: _Since = None, task: _Word = None
    ) -> Response:
        """Cases for labelling, with images and what is known of them; docs/gateway.md has the format.

        ``status=rejected`` gives every case that was rejected, whatever its app said since.
        """
        filters = Filters(status, moment(since) if since is not None else None, task)
        if places.locked():
            raise Overloaded("Other exports are being made.", hint="Ask again when they are done.")
        take_time(request.scope)
        async with places:
            file, size = await gateway.run_images(_build, gateway, who, filters)
        name = f"cases-{gateway.store.clock():%Y%m%d-%H%M%S}.zip"
        return Download(gateway, file, size, name)


def moment(text: str) -> dt.datetime:
    """The moment that a date, or a date and time, says; in UTC where it names no zone.

    Raises:
        RequestError: it says none.
    """
    try:
        # A plus sign in a query is a space unless it was encoded; nobody's time has one there otherwise.
        found = dt.datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise RequestError(
            "since is not a date or time.", hint="Write it as 2026-11-01 or 2026-11-01T08:30:00Z."
        ) from None
    found = found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
    try:
        return found.astimezone(dt.UTC)
    except OverflowError:
        # Within a day of the calendar's ends, where no case is.
        return (dt.datetime.min if found.year == 1 else dt.datetime.max).replace(tzinfo=dt.UTC)


def _build(gateway: Gateway, who: Identity, filters: Filters) -> tuple[IO[bytes], int]:
    """The archive's file, at its beginning, and its size."""
    counts: dict[str, int] = {}

    def fill(file: IO[bytes]) -> None:
        archive = Archive(gateway.blobs, file)
        archive.fill(gateway.store, who, filters)
        counts.update(cases=archive.cases, images=archive.images)

    file, size = built(fill, hint="Export less at once: since, status, task.")
    with gateway.store.write(who.tenant, who.actor) as scope:
        scope.audit("cases.export", about("tenant", who.tenant), **counts, bytes=size)
    return file, size
