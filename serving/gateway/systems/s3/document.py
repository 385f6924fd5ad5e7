"""S3's documents, as the OpenAPI document shows them and the routes fill them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from serving.gateway.store.tables import Scan

Status = Literal["pending", "processing", "completed", "failed"]
Share = Field(ge=0, le=1)
#: ISO 8601 with the zone.
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Reason(BaseModel):
    """Why a scan failed: ``code`` is stable and for programs, ``message`` says what to do."""

    code: str
    message: str
    details: list[str] | None = Field(None, description="What the models' quality gate found.")


class Begun(BaseModel):
    """A new scan."""

    scan_id: str
    status: Status
    created_at: Moment


class Uploaded(BaseModel):
    """A scan whose photograph is kept, and is being analysed."""

    scan_id: str
    status: Status
    image_url: str = Field(description="An address that works until it expires.")
    message: str


class State(BaseModel):
    """Where a scan is. ``reason`` is there when it failed, and then only."""

    scan_id: str
    status: Status
    created_at: Moment
    updated_at: Moment
    reason: Reason | None = None


class History(BaseModel):
    """One's own scans, newest first."""

    scans: list[State]


class AcneProbabilities(BaseModel):
    """Calibrated."""

    no_acne: float = Share
    acne: float = Share


class Acne(BaseModel):
    """Whether there is acne."""

    detected: bool
    confidence: float = Share
    label: Literal["no_acne", "acne"]
    probabilities: AcneProbabilities


class ConditionProbabilities(BaseModel):
    """Calibrated."""

    normal: float = Share
    acne: float = Share
    rosacea: float = Share
    eczema: float = Share
    pigmentation: float = Share


class Condition(BaseModel):
    """Which condition the skin is in."""

    condition: Literal["normal", "acne", "rosacea", "eczema", "pigmentation"]
    confidence: float = Share
    probabilities: ConditionProbabilities


class ModelsUsed(BaseModel):
    """Which of the two models answered."""

    acne_model: bool
    condition_model: bool


class MlAnalysis(BaseModel):
    """What the models said; null where there is no such model."""

    acne_analysis: Acne | None
    condition_analysis: Condition | None
    ml_models_used: ModelsUsed


class Wrinkles(BaseModel):
    """Null where it could not be measured."""

    detected: bool | None
    density: float | None


class DarkCircles(BaseModel):
    """Null where it could not be measured."""

    detected: bool | None
    severity: float | None


class CvAnalysis(BaseModel):
    """Measures of the picture. ``skin_type`` comes from shine and redness alone."""

    skin_tone: str
    skin_type: str
    texture_quality: float | None
    wrinkles: Wrinkles
    dark_circles: DarkCircles


class Result(BaseModel):
    """A scan's result. ``confidence`` is the lower of the two models', null unless both answered."""

    scan_id: str
    status: Literal["completed"]
    ml_analysis: MlAnalysis
    cv_analysis: CvAnalysis
    confidence: float | None
    generated_at: Moment


class Results(BaseModel):
    """A completed scan."""

    scan_id: str
    status: Literal["completed"]
    result: Result
    created_at: Moment
    updated_at: Moment


class NoResults(BaseModel):
    """There is no result, yet or at all: ``status`` says which, and ``reason`` why where it failed."""

    detail: str
    status: Status | None = None
    reason: Reason | None = None


def results_of(scan: Scan) -> dict[str, Any]:
    """``Results`` of a completed scan's row, keys in the contract's order, which PostgreSQL doesn't keep."""
    return Results(
        scan_id=scan.id,
        status="completed",
        result=Result.model_validate(scan.result),
        created_at=scan.created_at.isoformat(),
        updated_at=scan.updated_at.isoformat(),
    ).model_dump()


def state_of(scan: Scan) -> dict[str, Any]:
    """``State`` of a row; without ``reason`` unless it failed, so that its keys are the contract's."""
    document = {
        "scan_id": scan.id,
        "status": scan.status,
        "created_at": scan.created_at.isoformat(),
        "updated_at": scan.updated_at.isoformat(),
    }
    return {**document, "reason": scan.failure} if scan.failure is not None else document
