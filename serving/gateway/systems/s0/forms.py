"""The documents of S0: what the app sends of a case, and what it gets.

Old apps send more than is written here, and not always in one type: what isn't needed to find the case again
is taken as it comes, and every document is kept whole, as it was sent.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt

LONGEST = 200
#: No database that we know holds a NUL character.
NO_NUL = r"^[^\x00]*$"

Key = Annotated[str, Field(min_length=1, max_length=LONGEST, pattern=NO_NUL)] | StrictInt
Word = Annotated[str, Field(max_length=LONGEST, pattern=NO_NUL)] | StrictInt | None
Text = Annotated[str, Field(pattern=NO_NUL)] | None

_EXAMPLE: dict[str, Any] = {
    "case_id": "2026-000123",
    "image_id": "3f1c2d94-5a55-4a0e-9f5e-0d6f0a4c1b77",
    "blur_score": 312.4,
    "predictions": [{"label": "nv", "confidence": 0.81, "task": "skin_lesion"}],
    "status": "success",
    "gender": "f",
    "age": 54,
    "location": "left forearm",
    "symptoms": ["itching"],
    "user_id": "u-17",
}


class CaseIn(BaseModel):
    """A case as an app knows it. Only ``case_id`` is needed; fields that aren't named here are kept too."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _EXAMPLE})

    case_id: Key
    image_id: Text = None
    blur_score: float | None = None
    predictions: list[Any] | None = None
    device: Any = None
    notes: Text = None
    status: Word = None
    gender: Any = None
    age: Any = None
    location: Any = None
    symptoms: list[Any] | None = None
    image_paths: list[Any] | None = None
    created_at: Any = None
    user_id: Word = None
    user_role: Word = None

    @property
    def key(self) -> str:
        """The case's id as text; some apps count."""
        return str(self.case_id)


class RejectionIn(CaseIn):
    """A case whose answer its user says is wrong."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"example": {**_EXAMPLE, "reason": "wrong lesion"}}
    )

    reason: Text = None


class Logged(BaseModel):
    """``message`` is ``logged`` or ``rejected_logged``."""

    status: str
    message: str
    case_id: str


class Uploaded(BaseModel):
    """The image is kept, under this id."""

    status: str
    image_id: str


class Guess(BaseModel):
    """One class of one model, and its calibrated probability."""

    label: str
    confidence: float
    task: str


class Quality(BaseModel):
    """The platform's own verdict: ``gradable``, ``retake`` or ``ungradable``, and why."""

    verdict: str
    reasons: list[str]


class Checked(BaseModel):
    """``status`` is ``success``, ``uncertain`` (a person should look), or ``fail`` (take it again).

    ``predictions`` has each model's classes, the likeliest first, and is empty after a ``fail``. ``quality``
    is null where no model could be asked about a blurred image.
    """

    status: str
    message: str
    blur_score: float
    predictions: list[Guess]
    quality: Quality | None
    image_id: str
    case_id: str | None
    timestamp: str


class Health(BaseModel):
    """``model_versions`` of the models that answer now."""

    status: str
    device: str
    version: str
    models_loaded: list[str]
    model_versions: dict[str, str]
