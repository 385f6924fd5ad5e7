"""S1's documents: as the OpenAPI document shows them, and made of what a model answered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.errors import NotGradable, ServingError
from serving.core.runtimes.chain import LINKS, ModelType
from serving.gateway.errors import ModelFailed
from serving.gateway.models import Answer
from serving.profile import HEADS, TASK, profile_document


class Confidences(BaseModel):
    """The calibrated probabilities of the labels answered; ``condition``'s of ``healthy`` too."""

    skin_type: float = Field(ge=0, le=1)
    hair_type: float = Field(ge=0, le=1)
    condition: float = Field(ge=0, le=1)


class Profile(BaseModel):
    """A profile. ``conditions_detected`` is empty when healthy; ``model_type`` is what ran the model."""

    # Pydantic keeps names with ``model_`` to itself, which two of the contract's begin with.
    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "example": {
                "skin_type": "combination",
                "hair_type": "wavy",
                "conditions_detected": ["mild_acne"],
                "confidence_scores": {"skin_type": 0.91, "hair_type": 0.84, "condition": 0.77},
                "model_version": "3",
                "model_type": "tflite",
            }
        },
    )

    skin_type: Literal["normal", "dry", "oily", "combination", "sensitive"]
    hair_type: Literal["straight", "wavy", "curly", "coily"]
    conditions_detected: list[Literal["mild_acne", "severe_acne", "eczema", "psoriasis"]]
    confidence_scores: Confidences
    model_version: str
    model_type: ModelType


class Health(BaseModel):
    """``degraded`` when no model answers, the mock doing so or not."""

    status: Literal["healthy", "degraded"]
    models_available: bool
    message: str
    tflite_available: bool
    onnx_available: bool


def model_type(runtime: str) -> ModelType | None:
    """The contract's word for what runs a model (``tflite 2.1.6``); None for what S1 doesn't run on."""
    return next((link for link, name, _ in LINKS if runtime.partition(" ")[0] == name), None)


def profile_of(answer: Answer) -> dict[str, Any]:
    """S1's document of a model's answer.

    Raises:
        NotGradable: the photograph isn't good enough for one.
        ModelFailed: the model is none of S1's, or runs on what S1 doesn't.
    """
    try:
        heads = {name: answer.reply.head(name, classes) for name, classes in HEADS.items()}
    except NotGradable:
        raise
    except ServingError as error:
        raise ModelFailed(error.message, hint=error.hint) from error
    link = model_type(answer.runtime)
    if link is None:
        other = answer.runtime.partition(" ")[0] or "an unknown runtime"
        raise ModelFailed(
            f"The profile is run by {other}; S1 answers on TFLite or ONNX Runtime only.",
            hint="Serve it with a predictor of this release, and --precision auto.",
        )
    return profile_document(
        {name: (head.label, head.confidence) for name, head in heads.items()},
        version=answer.reply.model.version,
        model_type=link,
    )


def health_of(described: dict[str, Any] | None, *, mock: bool) -> dict[str, Any]:
    """S1's health of what the models' server says about the profile; None where it isn't served.

    A link counts as available where the bundle has it and the predictor has not passed it over.
    """
    if described is None:
        message = (
            "No model of the profile is served: the mock answers, and its answers mean nothing."
            if mock
            else f"No model of the profile is served. Train and promote one: retiderm run {TASK}."
        )
        found: set[ModelType] = set()
    else:
        approved = described.get("precisions", ())
        found = {link for link, _, names in LINKS if any(name in approved for name in names)}
        runs = model_type(str(described.get("runtime", "")))
        order = [link for link, _, _ in LINKS]
        if runs is not None:
            found = {link for link in found if order.index(link) >= order.index(runs)} | {runs}
        version = described["version"]
        message = f"Version {version} answers" + (f" on {runs}." if runs else ".")
        if mock:
            message = f"The mock answers, and its answers mean nothing: start again for version {version}."
    return {
        "status": "healthy" if described is not None and not mock else "degraded",
        "models_available": described is not None,
        "message": message,
        "tflite_available": "tflite" in found,
        "onnx_available": "onnx" in found,
    }
