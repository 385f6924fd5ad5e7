"""What S0's camera app sends, and what its reviewers get."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import Any

import cv2
import httpx
import numpy as np

from tests.gateway_live import form_of, photograph

CHECKED = {
    "status",
    "message",
    "blur_score",
    "predictions",
    "image_id",
    "case_id",
    "timestamp",
    "quality",
}
# Every field that the contract lists, and some that no one does.
CASE: dict[str, Any] = {
    "blur_score": 321.5,
    "predictions": [{"label": "nv", "confidence": 0.91}],
    "device": "Pixel 4a",
    "notes": "itches at night",
    "status": "success",
    "gender": "f",
    "age": 54,
    "location": "left forearm",
    "symptoms": ["itching", "bleeding"],
    "image_paths": ["/storage/emulated/0/a.jpg"],
    "created_at": "vendredi, 3 mai",
    "user_id": "u-17",
    "user_role": "patient",
    "app_build": {"number": 412, "channels": ["beta"]},
}


def plain_blur_score(data: bytes) -> float:
    """As the old service took it, call by call."""
    grey = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def check(client: httpx.Client, data: bytes, **params: str) -> dict[str, Any]:
    answer = client.post("/check-image", files=form_of(data), params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == CHECKED
    return body


def seed_of(client: httpx.Client, status: str) -> bytes:
    """A sharp photograph that the untrained networks are sure of, or not."""
    for seed in range(100, 140):
        if check(client, photograph(seed))["status"] == status:
            return photograph(seed)
    raise AssertionError(f"none is {status}")


def export(
    client: httpx.Client, **params: str
) -> tuple[list[dict[str, str]], list[dict[str, Any]], zipfile.ZipFile]:
    """``labels.csv``, ``cases.jsonl`` and the zip, as a reviewer gets them."""
    answer = client.get("/cases/export", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="cases-')
    assert int(answer.headers["content-length"]) == len(answer.content)
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
    lines = [json.loads(line) for line in archive.read("cases.jsonl").splitlines()]
    return rows, lines, archive


def of_case(lines: list[dict[str, Any]], key: str) -> dict[str, Any]:
    (found,) = [line for line in lines if line["case_id"] == key]
    return found
