"""What ``POST /predict/`` is asked: a form's fields, or a query's, as its clients send either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError

from data.errors import Conflict
from serving.gateway.store.checks import check_text

VISITS = ("pre-treatment", "follow-up", "post-treatment")
LONGEST_NOTES = 20_000
_NAMES = ("patient_id", "visit_type", "notes")

_IMAGE = {
    "type": "string",
    "format": "binary",
    "description": "The fundus photograph: JPEG, PNG, BMP, WebP, TIFF or GIF.",
}
#: The form in the OpenAPI document. Such a document can't say "in the query or in the form", so it has the
#: one way that is whole by itself, and the route's text tells of the others.
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": _IMAGE,
                        "patient_id": {"type": "string", "minLength": 1, "maxLength": 200},
                        "visit_type": {"type": "string", "enum": list(VISITS)},
                        "notes": {"type": "string", "maxLength": LONGEST_NOTES},
                    },
                    "required": ["file", "patient_id", "visit_type"],
                }
            }
        },
    }
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose photograph it is, at which visit, with what the clinician notes."""

    patient_id: str
    visit_type: str
    notes: str | None


def read_asked(query: Mapping[str, str], form: Mapping[str, str]) -> Asked:
    """The fields, from either place; an empty one counts as not said.

    Raises:
        RequestValidationError: one is missing, or not of its form.
        Conflict: both places say one, and differently: nobody can tell whose photograph it is.
    """
    said: dict[str, str] = {}
    for name in _NAMES:
        for text in filter(None, (query.get(name), form.get(name))):
            if said.setdefault(name, text) != text:
                raise Conflict(f"{name} is said twice, and differently.", hint="Say it once.")
    problems = [
        _problem("missing", name, "Field required")
        for name in ("patient_id", "visit_type")
        if name not in said
    ]
    if "visit_type" in said and said["visit_type"] not in VISITS:
        problems.append(_problem("enum", "visit_type", f"Input should be {', '.join(VISITS)}"))
    if len(said.get("notes", "")) > LONGEST_NOTES:
        problems.append(_problem("string_too_long", "notes", f"At most {LONGEST_NOTES} characters"))
    if problems:
        raise RequestValidationError(problems)
    notes = said.get("notes")
    return Asked(
        said["patient_id"], said["visit_type"], check_text(notes, "notes") if notes is not None else None
    )


def _problem(kind: str, name: str, message: str) -> dict[str, Any]:
    return {"type": kind, "loc": ("body", name), "msg": message}
