"""``/docs``: Swagger UI over ``/openapi.json``, from this server alone.

Its script and style come with the package ``fastapi-swagger``, whose files are served as they are; its code
is not used. The page loads nothing from elsewhere, and its policy forbids scripts and styles that aren't
files of ours.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.errors import NotFound
from serving.gateway.routing import new_router, public

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_PACKAGE = "fastapi_swagger"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>retiderm gateway</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
</head>
<body>
<div id="page"></div>
<noscript>This page needs JavaScript. What it shows is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Addresses beside the page's own, so that it works below a proxy's prefix too. No validator is asked.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_STYLE = "body { margin: 0; background: #fff; }\n"
_OWN = {"start.js": (_START, "text/javascript"), "page.css": (_STYLE, "text/css")}
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def build(gateway: Gateway, app: FastAPI) -> APIRouter:
    """``/docs``, its files, and ``/openapi.json``. Public: what routes there are is no secret."""
    from serving.gateway.systems.base import BASE

    router = new_router(gateway, BASE)

    @router.get("/openapi.json", include_in_schema=False)
    @public
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    @router.get("/docs", include_in_schema=False)
    @public
    async def docs() -> Response:
        # Fails here and not half-way, where the package isn't installed.
        await gateway.run(_file, "swagger-ui-bundle.js")
        return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    @router.get("/docs/{name}", include_in_schema=False)
    @public
    async def file(name: str, request: Request) -> Response:
        data, kind, tag = await gateway.run(_file, name)
        # Files change with a release, and are then asked for again.
        headers = {"ETag": tag, "Cache-Control": "public, no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    return router


@cache
def _file(name: str) -> tuple[bytes, str, str]:
    """A file's bytes, type and tag. Only the names above are looked for."""
    if name in _OWN:
        text, kind = _OWN[name]
        data = text.encode()
    elif name in _TYPES:
        kind = _TYPES[name]
        data = _resource(name)
    else:
        raise NotFound("There is no such file.")
    return data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def _resource(name: str) -> bytes:
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    try:
        return (Path(next(iter(folders or ()))) / "resources" / name).read_bytes()
    except (StopIteration, OSError):
        raise NotFound(
            "The page's files are not installed here; the document is at /openapi.json.",
            hint="pip install 'retiderm[gateway]'",
        ) from None
