"""Exports and decisions of the review page: noted, whole, and the right tenant's."""

from __future__ import annotations

import errno
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from starlette.testclient import TestClient

from serving.gateway import downloads
from serving.gateway.access import Role, create
from serving.gateway.app import create_app
from serving.gateway.gateway import Gateway
from serving.gateway.settings import Settings
from serving.gateway.store import open_store, unscoped
from serving.gateway.store.repositories import audit
from serving.gateway.systems.review import labels as module
from tests.gateway_rows import fill, folder_blobs

COMMAND = (sys.executable, "-c", "import sys, json; print(json.dumps({'asked': sys.argv[1:]}))")


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    store = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    settings = Settings(
        models_url="http://127.0.0.1:9", systems=("v1", "review"), drift_minutes=0, registry_command=COMMAND
    )
    return Gateway(settings, store=store, blobs=folder_blobs(tmp_path / "images"))


@pytest.fixture
def client(gateway: Gateway) -> Iterator[TestClient]:
    fill(gateway.store, gateway.blobs, gateway.tenant)
    with TestClient(create_app(gateway=gateway)) as found:
        found.headers["x-api-key"] = token_of(gateway, gateway.tenant)
        yield found


def token_of(gateway: Gateway, tenant: str) -> str:
    with gateway.store.write(tenant, "test") as scope:
        return create(scope, role=Role.ADMIN, name="reader").text


def test_an_export_of_labels_is_whole_and_noted(gateway: Gateway, client: TestClient) -> None:
    answer = client.get("/v1/review/labels/export", params={"task": "skin_lesion"})
    assert answer.headers["content-length"] == str(len(answer.content))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        (line,) = archive.read("labels.jsonl").splitlines()
        assert json.loads(line)["file"] in archive.namelist()
    with gateway.store.read(gateway.tenant) as scope:
        (entry,) = audit.entries(scope, action="labels.export")
    assert audit.data_of(entry) == {"images": 1, "labels": 1, "bytes": len(answer.content)}


def test_no_room_for_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> IO[bytes]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_fill", full)
    answer = client.get("/v1/review/labels/export", params={"task": "skin_lesion"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "store_full")
    monkeypatch.setattr(downloads.tempfile, "TemporaryFile", full)
    assert client.get("/v1/review/labels/export", params={"task": "skin_lesion"}).status_code == 507


def test_images_inside_tasks_are_few(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_INSIDE", 3)
    answer = client.get("/v1/review/label-studio", params={"task": "skin_lesion"})
    assert answer.status_code == 400
    assert "batch" in answer.json()["error"]["hint"]


def test_another_tenant_does_not_decide_what_serves(gateway: Gateway, client: TestClient) -> None:
    said = {"version": "3", "why": "it is better"}
    ours = client.post("/review/api/models/dr_grading/promote", json=said)
    assert ours.json()["asked"][:3] == ["models", "promote", "dr_grading"]
    theirs = {"x-api-key": token_of(gateway, unscoped.create_tenant(gateway.store, "theirs").id)}
    for verb in ("approve", "promote", "rollback"):
        answer = client.post(f"/review/api/models/dr_grading/{verb}", json=said, headers=theirs)
        assert answer.status_code == 403


def test_another_tenant_does_not_read_who_decided_and_why(
    gateway: Gateway, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "list": [
            {"version": "3", "aliases": [], "gate": {"decision": "refuse", "approved_by": "Dr. Ada"},
             "tags": {"approved_by": "Dr. Ada", "gate.reasons": "worse by 0.1"}},
        ],
        "history": [
            {"seq": 1, "event": "gate", "who": "root", "why": "worse by 0.1", "data": {"line": "a"}},
            {"seq": 2, "event": "intent", "who": "Dr. Ada", "why": "her own patients",
             "data": {"action": "promote", "comparison": {"images": 7}}},
        ],
    }  # fmt: skip

    async def read(*words: str) -> object:
        return told[words[0]]

    async def described(_: str) -> None:
        return None

    monkeypatch.setattr(gateway.registry, "read", read)
    monkeypatch.setattr(gateway.models, "describe", described)
    ours = client.get("/review/api/models/dr_grading").json()["registry"]
    assert ours == {"versions": told["list"], "ledger": told["history"]}
    headers = {"x-api-key": token_of(gateway, unscoped.create_tenant(gateway.store, "theirs").id)}
    theirs = client.get("/review/api/models/dr_grading", headers=headers).json()["registry"]
    assert not any(word in str(theirs) for word in ("Ada", "root", "patients", "images"))
    (version,) = theirs["versions"]
    assert version["gate"] == {"decision": "refuse", "approved_by": "this gateway's tenant"}
    gate, intent = theirs["ledger"]
    assert (gate["why"], gate["data"]) == ("worse by 0.1", {"line": "a"})
    assert (intent["event"], intent["data"]) == ("intent", {"action": "promote"})
