"""S3's users, and what the contract lists of a scan."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.scan import ACNE, CONDITION
from tests.faces import portrait
from tests.gateway_live import Live
from tests.profiles import jpeg

S3 = {"GATEWAY_SYSTEMS": "s3"}
SELFIE = jpeg(portrait(480))
STATE = ["scan_id", "status", "created_at", "updated_at"]
RESULTS = ["scan_id", "status", "result", "created_at", "updated_at"]
RESULT = ["scan_id", "status", "ml_analysis", "cv_analysis", "confidence", "generated_at"]


@contextlib.contextmanager
def user(live: Live, name: str | None = None, **options: Any) -> Iterator[httpx.Client]:
    """Somebody with a bearer token of their own."""
    token = live.token(kind="bearer", subject=name, **options)
    with live.client(token, bearer=True) as client:
        yield client


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    return str(answer.json()["detail"])


def moment(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    assert found.tzinfo is not None
    return found


def held_to_contract(result: dict[str, Any], scan_id: str) -> None:
    """Every key of the contract's result, and no other."""
    assert list(result) == RESULT
    assert (result["scan_id"], result["status"]) == (scan_id, "completed")
    ml, cv = result["ml_analysis"], result["cv_analysis"]
    assert list(ml) == ["acne_analysis", "condition_analysis", "ml_models_used"]
    assert ml["ml_models_used"] == {"acne_model": True, "condition_model": True}
    acne, condition = ml["acne_analysis"], ml["condition_analysis"]
    assert list(acne) == ["detected", "confidence", "label", "probabilities"]
    assert tuple(acne["probabilities"]) == ACNE.classes
    assert acne["detected"] is (acne["label"] == "acne")
    assert acne["confidence"] == acne["probabilities"][acne["label"]]
    assert list(condition) == ["condition", "confidence", "probabilities"]
    assert tuple(condition["probabilities"]) == CONDITION.classes
    assert condition["confidence"] == condition["probabilities"][condition["condition"]]
    for part in (acne, condition):
        assert sum(part["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert result["confidence"] == min(acne["confidence"], condition["confidence"])
    assert list(cv) == ["skin_tone", "skin_type", "texture_quality", "wrinkles", "dark_circles"]
    assert list(cv["wrinkles"]) == ["detected", "density"]
    assert list(cv["dark_circles"]) == ["detected", "severity"]
    moment(result["generated_at"])
