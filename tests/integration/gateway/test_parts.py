"""Parts that are OK or not go the same way as lesions: over /v1 to a reader, and out as labels."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.gateway.access import Role
from tests.anomaly_bundles import file, surface, tiny_anomaly_bundle, with_blot
from tests.gateway_live import Live, live_gateway
from tests.integration.serving.harness import Servers, promote

TASK = "anomaly"
OK, NG = file(surface(512, seed=70)), file(with_blot(surface(512, seed=71), 0.5, 0.5))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("parts")
    promote(folder / "serving", tiny_anomaly_bundle(folder / "bundle"), "3")
    told = {
        "GATEWAY_SYSTEMS": "v1,review",
        "GATEWAY_QUEUE_AUDIT": "1",
        "GATEWAY_SERVING_ROOT": str(folder / "serving"),
    }
    with (
        Servers(folder / "serving", folder / "servers").running() as servers,
        live_gateway(folder / "gateway", servers.url, **told) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def app(live: Live) -> Iterator[httpx.Client]:
    with live.client(live.token()) as client:
        yield client


@pytest.fixture(scope="module")
def reader(live: Live) -> Iterator[httpx.Client]:
    with live.client(live.token(Role.REVIEWER, subject="eve")) as client:
        yield client


def test_from_a_photograph_to_a_label(app: httpx.Client, reader: httpx.Client) -> None:
    images = {}
    for name, data in (("ok", OK), ("ng", NG)):
        headers = {"content-type": "image/png"}
        answer = app.post("/v1/predictions", content=data, params={"task": TASK}, headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["anomaly"]["label"] == name
        images[answer.json()["image_id"]] = name
    listed = reader.get("/review/api/queue", params={"task": TASK}).json()["items"]
    assert sorted(item["labels"]["status"] for item in listed) == ["ng", "ok"]
    assert {item["confidence"] for item in listed} == {None}
    for item in listed:
        entry = reader.get(f"/review/api/entries/{item['id']}").json()
        assert entry["classes"] == {"status": ["ok", "ng"]}
        for wrong in ({}, {"status": {"value": "broken"}}, {"other": {"value": "ok"}}):
            said = reader.post(f"/review/api/entries/{item['id']}/labels", json={"heads": wrong})
            assert said.status_code == 400, said.text
        # The reader sees a fault that the model did not, and the other way round.
        truth = {"ok": "ng", "ng": "ok"}[item["labels"]["status"]]
        said = reader.post(
            f"/review/api/entries/{item['id']}/labels", json={"heads": {"status": {"value": truth}}}
        )
        assert said.status_code == 200, said.text
        assert said.json()["state"] == "done"
    exported = reader.get("/v1/review/labels/export", params={"task": TASK})
    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        lines = [json.loads(line) for line in archive.read("labels.jsonl").splitlines()]
    assert {line["image_id"]: (line["head"], line["value"]) for line in lines} == {
        image: ("status", {"ok": "ng", "ng": "ok"}[name]) for image, name in images.items()
    }


def test_the_window_for_drift_has_the_scores(reader: httpx.Client, tmp_path: Path) -> None:
    from serving.core.drift import read_window

    sent = reader.get(f"/v1/review/drift/window/{TASK}")
    assert sent.status_code == 200, sent.text
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        archive.extractall(tmp_path / "window")
    window, info = read_window(tmp_path / "window")
    assert window.images == 2
    assert window.score is not None
    assert window.score[1] > window.score[0] > 0
    assert info.task == TASK
