"""``/v1/models``: what is served now."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.models import titles_of
from serving.gateway.routing import Who, allow
from serving.gateway.systems.v1.common import refusals


class ServedModel(BaseModel):
    """A model that answers: which files, and what they learned from.

    ``classes`` are each head's, and ``titles`` what people read for them, where that is more than the name;
    an anomaly model has none. ``mode`` is ``shadow`` or ``share`` for a version that answers beside the one
    that serves.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "dr_grading",
                "task": "dr_grading",
                "title": "Diabetic retinopathy",
                "version": "3",
                "digest": "sha256:5f0c…",
                "precision": "fp32",
                "dataset_digest": "sha256:a81e…",
                "code_digest": "sha256:93d1…",
                "runtime": "onnx 1.23.0",
                "classes": {"grade": ["no_dr", "mild", "moderate", "severe", "proliferative"]},
                "titles": {"grade": {"no_dr": "No DR", "mild": "Mild NPDR", "moderate": "Moderate NPDR"}},
                "intended_use": "…",
                "limits": ["…"],
                "mode": None,
            }
        }
    )

    name: str
    task: str
    title: str
    version: str
    digest: str
    precision: str
    dataset_digest: str
    code_digest: str
    runtime: str
    classes: dict[str, list[str]]
    titles: dict[str, dict[str, str]]
    intended_use: str
    limits: list[str]
    mode: str | None


class Models(BaseModel):
    """Every model that is served."""

    items: list[ServedModel]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add it."""

    @router.get("/v1/models", responses=refusals(502))
    @allow(Role.APP, Role.REVIEWER)
    async def list_models(who: Who) -> Models:
        """What is served now, as the models' own metadata says."""
        names = await gateway.models.names()
        found = await asyncio.gather(*(gateway.models.describe(name) for name in names))
        # One that went between the two questions is not served.
        told = [(name, said) for name, said in zip(names, found, strict=True) if said is not None]
        return Models(items=[_shown(name, said) for name, said in told])


def _shown(name: str, said: dict[str, Any]) -> ServedModel:
    words = ("title", "version", "digest", "precision", "dataset_digest", "code_digest", "runtime")
    return ServedModel(
        name=name,
        task=str(said.get("task") or name),
        classes={head: list(map(str, names)) for head, names in _classes(said).items()},
        titles=titles_of(said),
        intended_use=str(said.get("intended_use", "")),
        limits=[str(item) for item in said.get("limits", ())],
        mode=said.get("mode") or None,
        **{word: str(said.get(word, "")) for word in words},
    )


def _classes(said: dict[str, Any]) -> dict[str, Any]:
    found = said.get("classes")
    return found if isinstance(found, dict) else {}
