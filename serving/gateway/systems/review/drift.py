"""Drift: what the newest answers look like beside what their model learned from."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from serving.core.drift import write_window
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.gateway import Gateway
from serving.gateway.routing import Who, allow
from serving.gateway.systems.v1.common import refusals

TaskName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/review/api/drift/{task}", responses=refusals(404, 422))
    @allow(Role.REVIEWER)
    async def drift(who: Who, task: TaskName) -> dict[str, Any]:
        """The judgement on the newest answers of the model that serves. Gauges follow the clock instead."""
        return (await gateway.run(gateway.watch.report, who.tenant, task)).to_dict()

    @router.get(
        "/v1/review/drift/window/{task}", response_class=Response, responses={**_ZIP, **refusals(404, 422)}
    )
    @allow(Role.REVIEWER)
    async def window(who: Who, task: TaskName) -> Response:
        """The same window as a zip of the folder that `retiderm drift` reads (docs/drift.md)."""
        data = await gateway.run(_zip, gateway, who, task)
        headers = {"Content-Disposition": f'attachment; filename="window-{task}.zip"'}
        return Response(data, media_type="application/zip", headers=headers)


def _zip(gateway: Gateway, who: Identity, task: str) -> bytes:
    found, info = gateway.watch.window(who.tenant, task, gateway.watch.bundle(task))
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
        place = Folder(folder) / "window"
        write_window(place, found, info)
        for item in sorted(place.iterdir()):
            archive.write(item, item.name)
    return buffer.getvalue()
