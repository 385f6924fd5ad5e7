"""The form of what a model said, and of what is behind it."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE: dict[str, Any] = {
    "id": "e3b0c442-98fc-4c14-9afb-f4c8996fb924",
    "created_at": "2026-11-20T10:15:30.123456Z",
    "image_id": "7d5b1f9e-4a6f-4d8e-9a55-0f6f2b1c3d4e",
    "patient_id": None,
    "task": "dr_grading",
    "quality": {"verdict": "gradable", "reasons": []},
    "heads": {
        "grade": {
            "label": "mild",
            "confidence": 0.61,
            "probabilities": {
                "no_dr": 0.3,
                "mild": 0.61,
                "moderate": 0.06,
                "severe": 0.02,
                "proliferative": 0.01,
            },
            "set": ["no_dr", "mild"],
            "uncertain": True,
        }
    },
    "anomaly": None,
    "uncertain": True,
    "overlay": {
        "image_id": "f1c2d3e4-5a6b-4c7d-8e9f-0a1b2c3d4e5f",
        "url": "http://127.0.0.1:8000/files/…?expires=…&signature=…",
        "url_expires_at": "2026-11-20T11:15:30.123456Z",
    },
    "model": {
        "task": "dr_grading",
        "name": "dr_grading",
        "version": "3",
        "precision": "fp32",
        "digest": "sha256:5f0c…",
        "dataset_digest": "sha256:a81e…",
        "code_digest": "sha256:93d1…",
    },
    "trace": "/v1/predictions/e3b0c442-98fc-4c14-9afb-f4c8996fb924/trace",
}


class Quality(BaseModel):
    """Whether the image can be looked at: ``gradable``, ``retake`` or ``ungradable``, and why."""

    verdict: str
    reasons: list[str]


class Head(BaseModel):
    """One question's answer: its label, every class's calibrated probability, and the conformal set."""

    label: str
    confidence: float
    probabilities: dict[str, float]
    set: list[str]
    uncertain: bool


class Region(BaseModel):
    """A place that is unusual, in pixels of the image: x, y, width, height."""

    bbox: list[float]
    area_px: float
    contour: list[list[float]]


class Anomaly(BaseModel):
    """How far the image is from the OK ones, and where. No label without a threshold."""

    score: float
    threshold: float | None
    label: str | None
    regions: list[Region]


class AnsweringModel(BaseModel):
    """Which files answered, and what they learned from."""

    task: str
    name: str
    version: str
    precision: str
    digest: str
    dataset_digest: str
    code_digest: str


class Overlay(BaseModel):
    """The overlay, an image of its own. ``url`` gives it to whoever has it, until it expires."""

    image_id: uuid.UUID
    url: str
    url_expires_at: dt.datetime


class Prediction(BaseModel):
    """What a model said of an image. No heads and no anomaly where the image isn't gradable.

    ``uncertain``: a person should look, since a head is uncertain, or there is no answer.
    """

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    id: uuid.UUID
    created_at: dt.datetime
    image_id: uuid.UUID
    patient_id: uuid.UUID | None
    task: str
    quality: Quality
    heads: dict[str, Head]
    anomaly: Anomaly | None
    uncertain: bool
    overlay: Overlay | None
    model: AnsweringModel
    trace: str = Field(description="The path of everything behind the answer.")


class TracedImage(BaseModel):
    """The image that was answered."""

    id: uuid.UUID
    sha256: str
    media_type: str


class TracedModel(BaseModel):
    """The bundle that answered."""

    task: str
    name: str
    version: str
    precision: str
    bundle_digest: str


class Trace(BaseModel):
    """Everything behind one answer: image, bundle, data set, code, verdict, and the document as given."""

    prediction_id: uuid.UUID
    created_at: dt.datetime
    image: TracedImage
    model: TracedModel
    dataset_digest: str
    code_digest: str
    quality: dict[str, Any]
    answer: dict[str, Any]
