"""Drift: what the newest answers look like beside what their model learned from."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path as Folder
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from serving.core.drift import write_window
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.gateway import Gateway
from serving.gateway.loop.drift import Which
from serving.gateway.loop.page import Pages
from serving.gateway.routing import Who, allow
from serving.gateway.systems.v1.common import refusals

TaskName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}
WhichWindow = Annotated[
    Which, Query(description="`newest` whole one (the running one until there is any), `running`, `labels`.")
]
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
#: As the page says itself, and a sandbox without this origin: its scripts can neither ask nor read anything.
_SHUT_OFF = {
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    # Browsers show no sandboxed page that asks for a group of windows of its own.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    pages = Pages(gateway.settings.registry_command)

    @router.get("/review/api/drift/{task}", responses=refusals(404, 409, 422))
    @allow(Role.REVIEWER)
    async def drift(who: Who, task: TaskName) -> dict[str, Any]:
        """What stands of the newest whole windows and the running ones, of the model that serves.

        An alarm stands until a newer whole window is without one. The gauges then say the same.
        """
        found = await gateway.run(gateway.patrol.ask, who.tenant, task)
        shown = pages.there and found.images.standing.look > 0
        which = "running" if found.images.standing is found.images.running else "newest"
        address = f"/review/api/drift/{task}/page?which={which}"
        return {**found.to_dict(), "page": address if shown else None}

    @router.get(
        "/review/api/drift/{task}/page",
        response_class=Response,
        responses={**_HTML, **refusals(404, 409, 422, 503)},
    )
    @allow(Role.REVIEWER)
    async def page(who: Who, task: TaskName, which: Literal["newest", "running"] = "newest") -> Response:
        """A window's values beside the reference's, drawn by Evidently; for a tab of its own.

        Its charts are scripts inside the page, so it is shut off from everything: it loads nothing, and has
        neither this origin nor its session.
        """
        bundle, _ = await gateway.run(gateway.watch.bundle, task)
        found, info = await gateway.run(gateway.watch.window, who.tenant, task, which)
        data = await pages.page(gateway.run, who.tenant, found, info, bundle.root)
        return Response(data, media_type="text/html", headers=_SHUT_OFF)

    @router.get(
        "/v1/review/drift/window/{task}", response_class=Response, responses={**_ZIP, **refusals(404, 422)}
    )
    @allow(Role.REVIEWER)
    async def window(who: Who, task: TaskName, which: WhichWindow = "newest") -> Response:
        """A window as a zip of the folder that `retiderm drift` reads (docs/drift.md)."""
        data = await gateway.run(_zip, gateway, who, task, which)
        headers = {"Content-Disposition": f'attachment; filename="window-{task}-{which}.zip"'}
        return Response(data, media_type="application/zip", headers=headers)


def _zip(gateway: Gateway, who: Identity, task: str, which: Which) -> bytes:
    found, info = gateway.watch.window(who.tenant, task, which)
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
        place = Folder(folder) / "window"
        write_window(place, found, info)
        for item in sorted(place.iterdir()):
            archive.write(item, item.name)
    return buffer.getvalue()
