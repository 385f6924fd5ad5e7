"""A promotion on the page of models: what was seen of the version beside the champion goes along."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.gateway.blobs import keep
from serving.gateway.gateway import Gateway
from serving.gateway.loop import registry as module
from serving.gateway.settings import Settings
from serving.gateway.store.repositories import predictions
from serving.gateway.store.repositories.predictions import Origin
from tests.gateway_rows import ORIGIN, image_of

#: Says what it was asked, and what the file holds that ``--comparison`` names. Version 4 is the challenger.
COMMAND = (
    sys.executable,
    "-c",
    "import sys, json, pathlib; a = sys.argv[1:]; "
    "seen = a[a.index('--comparison') + 1] if '--comparison' in a else None; "
    "told = {'asked': a, 'seen': seen and json.loads(pathlib.Path(seen).read_text())}; "
    "versions = [{'version': '5', 'aliases': []}, {'version': '4', 'aliases': ['challenger']}]; "
    "print(json.dumps(versions if a[1] == 'list' else told))",
)
RIVAL = replace(
    ORIGIN, model_name="dr_grading-challenger", model_version="4", bundle_digest="sha256:" + "e" * 64
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, registry_command=COMMAND)


def answer(gateway: Gateway, number: int, champion: str, challenger: str, origin: Origin = ORIGIN) -> None:
    """Champion and challenger on one image."""
    kept = keep(gateway.blobs, gateway.tenant, f"image {number}".encode(), "image/png")
    with gateway.store.write(gateway.tenant, "test") as scope:
        image = image_of(scope, kept)
        for by, label, role in ((origin, champion, "champion"), (RIVAL, challenger, "challenger")):
            said = {"heads": {"grade": {"label": label, "probabilities": {"mild": 0.5, "severe": 0.5}}}}
            predictions.add(
                scope, by, image_id=image.id, verdict="gradable", answer=said, role=role,
                returned=role == "champion",
            )  # fmt: skip


def promote(client: TestClient, version: str | None) -> dict[str, object]:
    said = {"version": version, "why": "it is better"}
    found = client.post("/review/api/models/dr_grading/promote", json=said)
    assert found.status_code == 200, found.text
    told: dict[str, object] = found.json()
    return told


def test_how_it_answered_beside_the_champion_goes_into_the_ledger(
    gateway: Gateway, client: TestClient
) -> None:
    assert promote(client, "4")["seen"] is None
    # What stood beside another champion before is not held against this one.
    older = replace(ORIGIN, model_version="2", bundle_digest="sha256:" + "f" * 64)
    answer(gateway, 0, "mild", "severe", older)
    answer(gateway, 1, "mild", "mild")
    answer(gateway, 2, "mild", "severe")
    seen = {
        "champion": "3", "challenger": "4", "images": 2, "agree": 1, "labelled": 0,
        "champion_right": 0, "challenger_right": 0,
    }  # fmt: skip
    # An alias may name another version by the time that the command runs: it is given the number.
    for version in ("4", "challenger", None):
        told = promote(client, version)
        assert told["seen"] == seen
        asked = told["asked"]
        assert isinstance(asked, list)
        assert asked[:4] == ["models", "promote", "dr_grading", "4"]
        # It is gone with the request.
        assert not Path(asked[asked.index("--comparison") + 1]).exists()
    assert promote(client, "5")["seen"] is None


def test_a_decision_that_takes_long_is_answered_before_it_is_over(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"version": "4", "why": "it is better"}
    # The second one's turn comes, however long the first one takes.
    monkeypatch.setattr(module, "_TURN_S", 300.0)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_PATIENCE_S", 0.0)
        found = client.post("/review/api/models/dr_grading/rollback", json=said)
    assert (found.status_code, found.json()["under_way"]) == (202, True)
    assert "Look at the ledger" in found.json()["message"]
    # The next one waits for its turn.
    found = client.post("/review/api/models/dr_grading/rollback", json=said)
    assert found.status_code == 200
    assert found.json()["asked"][:5] == ["models", "rollback", "dr_grading", "--to", "4"]
