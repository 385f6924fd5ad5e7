"""V2's model metadata with what KServe's leaves out: versions, and who answers with which classes.

Upstream's ``GET /v2/models/{name}`` drops every field beyond name, platform, inputs and outputs.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from kserve import ModelRepository
from kserve.errors import ModelNotFound


def metadata_router(models: ModelRepository) -> APIRouter:
    """The route; models give ``version`` and ``describe()``."""
    router = APIRouter()

    @router.get("/v2/models/{name}", include_in_schema=False)
    async def metadata(name: str) -> JSONResponse:
        model: Any = models.get_model(name)
        if model is None:
            raise ModelNotFound(name)
        return JSONResponse(
            {
                "name": name,
                "versions": [model.version],
                "platform": "retiderm",
                "inputs": model.get_input_types(),
                "outputs": model.get_output_types(),
                "parameters": model.describe(),
            }
        )

    return router
