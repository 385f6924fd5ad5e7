"""The page itself: a few static files, which load nothing from elsewhere and run nothing inline."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import RedirectResponse, Response

from data.errors import NotFound
from serving.gateway.gateway import Gateway
from serving.gateway.routing import public

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Static, so that a name in a path can only be one of these.
_FILES = {
    item.name: item.read_bytes()
    for item in files("serving.gateway.systems.review").joinpath("static").iterdir()
    if item.name.rpartition(".")[2] in _TYPES
}
Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,40}\.[a-z]{2,4}$")]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""

    @router.get("/review", include_in_schema=False)
    @public
    async def start() -> Response:
        return RedirectResponse("/review/", status_code=307)

    @router.get("/review/", include_in_schema=False)
    @public
    async def page() -> Response:
        return _static("index.html")

    @router.get("/review/static/{name}", include_in_schema=False)
    @public
    async def static(name: Name) -> Response:
        return _static(name)


def _static(name: str) -> Response:
    if name not in _FILES:
        raise NotFound("There is no such file.")
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(_FILES[name], media_type=_TYPES[name.rpartition(".")[2]], headers=headers)
