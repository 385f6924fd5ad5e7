"""Label Studio's answers on their way in: all of them, or none and why."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.gateway.blobs import keep
from serving.gateway.gateway import Gateway
from serving.gateway.loop.reading import Said, record
from serving.gateway.store.repositories import labels, predictions, queue
from tests.gateway_rows import ORIGIN, image_of

GRADE = {"label": "mild", "confidence": 0.6, "probabilities": {"mild": 0.6, "severe": 0.4}}
HAIR = {"label": "wavy", "confidence": 0.9, "probabilities": {"wavy": 0.9, "curly": 0.1}}
ROUTE, TASK = "/v1/review/label-studio", {"task": "dr_grading"}


def wait(gateway: Gateway, count: int, answer: dict[str, Any] | None = None) -> list[str]:
    """Entries that wait."""
    found = []
    for number in range(count):
        kept = keep(gateway.blobs, gateway.tenant, f"image {number}".encode(), "image/png")
        with gateway.store.write(gateway.tenant, "test") as scope:
            image = image_of(scope, kept)
            said = predictions.add(
                scope, ORIGIN, image_id=image.id, verdict="gradable",
                answer=answer or {"heads": {"grade": GRADE}},
            )  # fmt: skip
            entry = queue.enter(
                scope, task="dr_grading", image_id=image.id, prediction_id=said.id,
                reasons=["audit"], priority=1.0,
            )  # fmt: skip
            found.append(entry.id)
    return found


def annotated(client: TestClient, who: str = "bob", **said: str) -> list[dict[str, Any]]:
    """What waits, as Label Studio exports it when somebody has said the same of each."""
    tasks: list[dict[str, Any]] = client.get(ROUTE, params={**TASK, "images": "page"}).json()["tasks"]
    result = [
        {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [value]}}
        for name, value in said.items()
    ]
    made = {"completed_by": {"email": who}, "created_at": "2026-11-20T12:00:00Z", "result": result}
    return [{**task, "annotations": [made]} for task in tasks]


def exported_labels(client: TestClient) -> list[dict[str, Any]]:
    content = client.get("/v1/review/labels/export", params=TASK).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [json.loads(line) for line in archive.read("labels.jsonl").splitlines()]


def standing(gateway: Gateway) -> list[str]:
    with gateway.store.read(gateway.tenant) as scope:
        return [row.reader for row in labels.listed(scope)]


def test_an_image_that_somebody_else_labelled_meanwhile_is_named(
    gateway: Gateway, client: TestClient
) -> None:
    entries = wait(gateway, 3)
    exported = annotated(client, grade="mild")
    said = {"heads": {"grade": {"value": "severe"}}}
    for entry in entries[1:]:
        assert client.post(f"/review/api/entries/{entry}/labels", json=said).status_code == 200
    answer = client.post(ROUTE, params=TASK, json=exported)
    assert answer.status_code == 409
    message = answer.json()["error"]["message"]
    assert message.startswith("Nothing was imported: 2 of its readings can't be taken.")
    assert f"{entries[1]}, label_studio:bob: This image was labelled by eve at " in message
    assert entries[2] in message
    assert entries[0] not in message
    assert standing(gateway) == ["eve", "eve"]
    # Without them it goes in, and once more changes nothing.
    rest = [task for task in exported if task["data"]["case"] == entries[0]]
    for _ in range(2):
        assert client.post(ROUTE, params=TASK, json=rest).json() == {"entries": 1, "skipped": []}
        assert standing(gateway) == ["eve", "eve", "label_studio:bob"]


def test_what_was_said_there_keeps_its_date_and_says_where_it_is_from(
    gateway: Gateway, client: TestClient
) -> None:
    entries = wait(gateway, 2)
    exported = annotated(client, who="eve", grade="mild")
    for task in exported:
        task["annotations"][0]["updated_at"] = "2020-01-01T12:00:00Z"
    said = {"heads": {"grade": {"value": "severe"}}}
    assert client.post(f"/review/api/entries/{entries[1]}/labels", json=said).status_code == 200
    for _ in range(2):
        told = client.post(ROUTE, params=TASK, json=exported).json()
        assert told == {"entries": 1, "skipped": [f"{entries[1]}: eve has labelled it here"]}
    lines = {line["reader"]: line for line in exported_labels(client)}
    assert set(lines) == {"eve", "label_studio:eve"}
    imported = lines["label_studio:eve"]
    assert (imported["at"], imported["source"]) == ("2020-01-01T12:00:00+00:00", "label_studio")
    assert lines["eve"]["source"] == "review"


def test_an_answer_in_other_classes_is_not_told_in_these(gateway: Gateway, client: TestClient) -> None:
    older = {"label": "grave", "confidence": 0.7, "probabilities": {"grave": 0.7, "light": 0.3}}
    (first,) = wait(gateway, 1)
    kept = keep(gateway.blobs, gateway.tenant, b"another", "image/png")
    with gateway.store.write(gateway.tenant, "test") as scope:
        image = image_of(scope, kept)
        said = predictions.add(
            scope, ORIGIN, image_id=image.id, verdict="gradable", answer={"heads": {"grade": older}}
        )
        second = queue.enter(
            scope,
            task="dr_grading",
            image_id=image.id,
            prediction_id=said.id,
            reasons=["audit"],
            priority=0.5,
        ).id
    tasks = client.get(ROUTE, params={**TASK, "images": "page"}).json()["tasks"]
    told = {task["data"]["case"]: [one["score"] for one in task["predictions"]] for task in tasks}
    assert told == {first: [0.6], second: []}
    # Each is held to its own model's classes, whichever of the two comes first.
    result = {"from_name": "grade", "to_name": "image", "type": "choices"}
    for entry, value in ((first, "mild"), (second, "grave")):
        made = {
            "completed_by": {"email": "bob"}, "created_at": "2026-11-20T12:00:00Z",
            "result": [{**result, "value": {"choices": [value]}}],
        }  # fmt: skip
        exported = [{**task, "annotations": [made]} for task in tasks if task["data"]["case"] == entry]
        assert client.post(ROUTE, params=TASK, json=exported).json()["entries"] == 1
    assert len(standing(gateway)) == 2


def test_a_head_that_was_left_out_names_its_task(gateway: Gateway, client: TestClient) -> None:
    entries = wait(gateway, 2, {"heads": {"grade": GRADE, "hair": HAIR}})
    exported = annotated(client, grade="mild", hair="wavy")
    exported[1]["annotations"] = annotated(client, grade="mild")[1]["annotations"]
    answer = client.post(ROUTE, params=TASK, json=exported)
    assert answer.status_code in (400, 422)
    message = answer.json()["error"]["message"]
    assert f"{entries[1]}, label_studio:bob: The label names grade; the model's heads are" in message
    assert standing(gateway) == []


def test_what_an_anomaly_model_had_said_goes_along(gateway: Gateway, client: TestClient) -> None:
    anomaly = {"score": 3.0, "threshold": 2.0, "label": "ng", "regions": []}
    wait(gateway, 1, {"heads": {}, "anomaly": anomaly})
    exported = annotated(client, status="ok")
    assert client.post(ROUTE, params=TASK, json=exported).json()["entries"] == 1

    (line,) = exported_labels(client)
    assert (line["head"], line["value"], line["prediction"]["label"]) == ("status", "ok", "ng")


def test_what_waits_for_a_second_reader_is_nothing_to_learn_from_yet(
    gateway: Gateway, client: TestClient
) -> None:
    wait(gateway, 3)
    drawn = client.post("/review/api/batches", json={**TASK, "strategy": "random", "size": 2, "readers": 2})
    both, half = drawn.json()["entries"]
    for entry in (both, half):
        said = {"heads": {"grade": {"value": "mild"}}}
        assert client.post(f"/review/api/entries/{entry}/labels", json=said).status_code == 200
    assert exported_labels(client) == []
    with gateway.store.write(gateway.tenant, "test") as scope:
        record(scope, both, reader="bob", said={"grade": Said("severe")})
    assert [(line["reader"], line["value"]) for line in exported_labels(client)] == [
        ("eve", "mild"),
        ("bob", "severe"),
    ]
    # A single reader's label counts at once.
    alone = client.get("/review/api/queue", params={"unread": True}).json()["items"][0]["id"]
    assert client.post(f"/review/api/entries/{alone}/labels", json=said).status_code == 200
    assert len(exported_labels(client)) == 3


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"case,label\n1,mild\n", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"{}", "no list of tasks"),
        (b'[1, null, {}, {"data": 3}]', "none of these tasks names an entry of this queue (no case)"),
        (b'[{"data": {"case": "c-9", "task": "dr_grading"}}]', "of this queue (c-9)"),
        (b'[{"data": {"case": ["c-9"]}}, {"data": {"case": 9}}]', "of this queue (no case)"),
        (b'[{"data": {"case": "\\u0000"}}]', "none of these tasks"),
    ],
)
def test_what_is_no_export_of_this_queue(client: TestClient, body: bytes, told: str) -> None:
    answer = client.post(ROUTE, params=TASK, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
