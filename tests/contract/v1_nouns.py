"""/v1's nouns as its clients read them: errors, ids, moments, pages, patients and predictions."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.gateway_live import GRADES, Live

NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass
class V1:
    """A gateway with S0 and /v1, and a client for each role."""

    live: Live
    app: httpx.Client
    reviewer: httpx.Client
    admin: httpx.Client


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


def is_id(text: str) -> bool:
    return str(uuid.UUID(text)) == text


def is_moment(text: str) -> bool:
    """RFC 3339, in UTC."""
    return text.endswith("Z") and dt.datetime.fromisoformat(text).tzinfo is not None


def patient_of(client: httpx.Client, name: str = "Ada L.", **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/patients", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pages(client: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        answer = client.get(path, params={**query, **({"after": after} if after else {})})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert set(body) == {"items", "next"}
        found += body["items"]
        after = body["next"]
        if after is None:
            return found
        assert body["items"]


def check_prediction(body: dict[str, Any]) -> None:
    assert set(body) == {
        "id", "created_at", "image_id", "patient_id", "task", "quality", "heads", "anomaly", "uncertain",
        "overlay", "model", "trace",
    }  # fmt: skip
    assert body["quality"] == {"verdict": "gradable", "reasons": []}
    head = body["heads"]["grade"]
    assert set(head) == {"label", "confidence", "probabilities", "set", "uncertain"}
    assert set(head["probabilities"]) == set(GRADES)
    assert sum(head["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert head["confidence"] == max(head["probabilities"].values())
    assert body["uncertain"] == head["uncertain"]
    assert set(body["model"]) == {
        "task", "name", "version", "precision", "digest", "dataset_digest", "code_digest",
    }  # fmt: skip
    assert all(body["model"].values())
