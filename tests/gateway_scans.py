"""S3's clients, for the tests of more than one folder."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.gateway_live import form_of
from tests.integration.serving.harness import PATIENCE_S

BASE = "/api/v1/scan"


def begin(client: httpx.Client) -> str:
    """A new scan's id."""
    answer = client.post(f"{BASE}/init")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["scan_id"])


def send(
    client: httpx.Client, scan_id: str, data: bytes, *, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Upload a photograph."""
    return client.post(f"{BASE}/{scan_id}/upload", files=form_of(data), headers=headers)


def ended(client: httpx.Client, scan_id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """The scan's state, once it is no longer processing."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = client.get(f"{BASE}/{scan_id}/status")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        if state["status"] not in ("pending", "processing"):
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
