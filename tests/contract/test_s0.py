"""Contract S0 over HTTP: photo → check → case → reject → export, against real processes, field by field."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import httpx
import pytest

from serving.client import ask
from serving.gateway.access import Role
from serving.gateway.store.repositories import images, labels, predictions, queue
from tests.contract.conftest import OLD_KEY, Opens
from tests.contract.s0_cases import CASE, check, export, of_case, plain_blur_score, seed_of
from tests.gateway_live import Live, form_of, photograph
from tests.integration.serving.harness import PATIENCE_S, Servers, get, until


def test_the_whole_story(each_clinic: Live, gateway_models: Servers, client_of: Opens, key: str) -> None:
    live, client = each_clinic, client_of(each_clinic)
    began = dt.datetime.now(dt.UTC)
    sharp, blurred = photograph(1), photograph(2, blurred=True)

    first = check(client, blurred, case_id=key)
    assert first["status"] == "fail"
    assert first["predictions"] == []
    assert first["blur_score"] == plain_blur_score(blurred)
    assert f"{first['blur_score']:.1f}" in first["message"]
    assert "100.0" in first["message"]
    assert first["quality"] == {"verdict": "retake", "reasons": ["blurred"]}

    second = check(client, sharp, case_id=key)
    assert second["status"] in ("success", "uncertain")
    assert second["blur_score"] == plain_blur_score(sharp)
    assert second["case_id"] == key
    assert str(uuid.UUID(second["image_id"])) == second["image_id"] != first["image_id"]
    assert began <= dt.datetime.fromisoformat(second["timestamp"]) <= dt.datetime.now(dt.UTC)
    assert second["quality"] == {"verdict": "gradable", "reasons": []}
    told = []
    for task in ("skin_lesion", "acne"):
        (document,) = ask(gateway_models.url, task, [sharp]).documents()
        (head,) = document["heads"].values()
        found = sorted(head["probabilities"].items(), key=lambda item: -item[1])
        told += [{"label": label, "confidence": value, "task": task} for label, value in found]
    assert second["predictions"] == told

    case = {**CASE, "case_id": key, "image_id": second["image_id"], "predictions": second["predictions"]}
    answer = client.post("/cases", json=case)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "message": "logged", "case_id": key}

    rejection = {"case_id": key, "image_id": second["image_id"], "reason": "wrong", "predictions": told[:1]}
    answer = client.post("/cases/reject", json=rejection)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "message": "rejected_logged", "case_id": key}

    with live.scope() as scope:
        label = {"task": "skin_lesion", "head": "diagnosis", "reader": "eve"}
        labels.add(scope, image_id=second["image_id"], value="mel", **label)

    rows, lines, archive = export(client_of(live, Role.REVIEWER), status="rejected", since=began.isoformat())
    line = of_case(lines, key)
    assert line["rejected"] is True
    assert line["task"] == "skin_lesion"
    assert line["image_id"] == second["image_id"]
    assert line["entries"][0]["case"] == case
    assert line["rejections"][0]["reason"] == "wrong"
    assert line["rejections"][0]["predictions"] == told[:1]
    assert line["labels"][0]["value"] == "mel"
    files = {image["image_id"]: image["file"] for image in line["images"]}
    assert archive.read(files[first["image_id"]]) == blurred
    assert archive.read(files[second["image_id"]]) == sharp
    answered = {row["task"]: row for row in line["predictions"] if row["image_id"] == second["image_id"]}
    assert set(answered) == {"skin_lesion", "acne"}
    for task, row in answered.items():
        reply = ask(gateway_models.url, task, [sharp])
        assert row["heads"] == reply.documents()[0]["heads"]
        assert row["model"] == {
            "name": reply.origin["model_name"],
            "version": reply.origin["model_version"],
            **{k: reply.origin[k] for k in ("bundle_digest", "precision", "dataset_digest", "code_digest")},
        }
    with live.scope() as scope:
        entry = queue.of_image(scope, "skin_lesion", second["image_id"])
    assert entry is not None
    assert "rejected" in entry.reasons
    mine = {row["image_id"]: row for row in rows if row["case_id"] == key}
    labelled = mine[second["image_id"]]
    assert archive.read(f"images/{labelled['image_name']}") == sharp
    assert labelled["label"] == "mel"
    assert labelled["reader"] == "eve"
    assert labelled["predicted"] == told[0]["label"]
    assert labelled["verdict"] == "gradable"
    assert mine[first["image_id"]]["label"] == ""
    assert mine[first["image_id"]]["verdict"] == "retake"


def test_health_says_which_models_answer(clinic: Live) -> None:
    body: dict[str, Any] = {}

    def both_answer() -> bool:
        answer = get(f"{clinic.url}/s0/health")
        assert answer.status_code == 200
        body.update(answer.json())
        return len(body["models_loaded"]) == 2

    # One that needs more than two seconds to say so is not named.
    until(both_answer)
    assert set(body) == {"status", "device", "version", "models_loaded", "model_versions"}
    assert body["status"] == "ok"
    assert body["device"] == "cpu"
    assert body["models_loaded"] == ["skin_lesion", "acne"]
    assert body["model_versions"] == {"skin_lesion": "1", "acne": "1"}


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": ""}, {"authorization": "Bearer wrong"}]
)
@pytest.mark.parametrize("path", ["/check-image", "/upload", "/cases", "/cases/reject", "/cases/export"])
def test_without_the_key_nothing_is_done(clinic: Live, headers: dict[str, str], path: str) -> None:
    method = "GET" if path.endswith("export") else "POST"
    answer = httpx.request(method, clinic.url + path, headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Invalid API key"}


def test_the_old_key_of_the_environment_opens_the_same_routes(
    clinic: Live, client_of: Opens, key: str
) -> None:
    client = client_of(clinic, token=OLD_KEY)
    assert check(client, photograph(1))["case_id"] is None
    assert client.post("/cases", json={"case_id": key}).status_code == 200
    assert client.get("/cases/export").status_code == 403


def test_an_upload_is_kept_as_it_is(camera: httpx.Client, reviewer: httpx.Client, key: str) -> None:
    data = photograph(7, kind=".png")
    answer = camera.post("/upload", files=form_of(data, "x.png", "image/png"))
    assert answer.status_code == 200
    image_id = answer.json()["image_id"]
    assert str(uuid.UUID(image_id)) == image_id
    camera.post("/cases", json={"case_id": key, "image_id": image_id})
    _, lines, archive = export(reviewer)
    (image,) = of_case(lines, key)["images"]
    assert image["file"].endswith(".png")
    assert archive.read(image["file"]) == data


@pytest.mark.parametrize("path", ["/check-image", "/upload"])
def test_the_image_may_be_the_body_itself(camera: httpx.Client, path: str) -> None:
    data = photograph(1)
    answer = camera.post(path, content=data, headers={"content-type": "image/jpeg"})
    assert answer.status_code == 200
    assert uuid.UUID(answer.json()["image_id"])


@pytest.mark.parametrize("path", ["/check-image", "/upload"])
@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", photograph(1)[:3000], b"\xff\xd8\xff" + bytes(100)],
    ids=["empty", "text", "cut off", "header only"],
)
def test_what_is_no_image_is_invalid(camera: httpx.Client, path: str, data: bytes) -> None:
    answer = camera.post(path, files=form_of(data))
    assert answer.status_code == 400
    assert answer.json() == {"detail": "Invalid image file"}


def test_a_form_without_the_file_is_refused(camera: httpx.Client) -> None:
    answer = camera.post("/check-image", files={"image": ("x.jpg", photograph(1))})
    assert answer.status_code == 400
    assert "file" in answer.json()["detail"]


def test_a_doubtful_answer_is_kept_for_labelling_though_nobody_logs_it(
    clinic: Live, camera: httpx.Client, reviewer: httpx.Client, key: str
) -> None:
    data = seed_of(camera, "uncertain")
    body = check(camera, data, case_id=key)
    assert "0.60" in body["message"]
    tops = {p["task"]: p["confidence"] for p in reversed(body["predictions"])}
    rows, lines, archive = export(reviewer, status="uncertain")
    line = of_case(lines, key)
    assert line["task"] == min(tops, key=tops.__getitem__)
    assert tops[line["task"]] < 0.6
    assert line["entries"] == []
    assert archive.read(line["images"][0]["file"]) == data
    assert [row["label"] for row in rows if row["case_id"] == key] == [""]
    with clinic.scope() as scope:
        uncertain = {row.task: row.uncertain for row in predictions.listed(scope, image_id=body["image_id"])}
        # Whichever copy it is about: the photograph was sent before, to find one that is doubtful.
        copies = images.with_content(scope, images.get(scope, body["image_id"]).sha256)
        found = (queue.of_image(scope, line["task"], copy.id) for copy in copies)
        entry = next((one for one in found if one is not None), None)
    assert uncertain[line["task"]]
    assert entry is not None
    assert "uncertain" in entry.reasons
    assert entry.case_id is not None
    # Logged afterwards, it is the same case.
    camera.post("/cases", json={**CASE, "case_id": key})
    _, lines, _ = export(reviewer)
    line = of_case(lines, key)
    assert line["status"] == "success"
    assert line["image_id"] == body["image_id"]
    assert len(line["entries"]) == 1


def test_a_confident_answer_begins_no_case(camera: httpx.Client, reviewer: httpx.Client, key: str) -> None:
    body = check(camera, seed_of(camera, "success"), case_id=key)
    assert min(p["confidence"] for p in body["predictions"]) >= 0
    _, lines, _ = export(reviewer)
    assert key not in [line["case_id"] for line in lines]


def test_without_models_there_is_no_label_and_no_loss(
    clinic_without_models: Live, client_of: Opens, key: str
) -> None:
    client = client_of(clinic_without_models)
    answer = client.post("/check-image", files=form_of(photograph(1)), params={"case_id": key})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    blurred = check(client, photograph(1, blurred=True))
    assert blurred["status"] == "fail"
    assert blurred["quality"] is None
    assert client.post("/upload", files=form_of(photograph(1))).status_code == 200
    assert client.post("/cases", json={"case_id": key}).status_code == 200
    health = client.get("/s0/health")
    assert health.status_code == 200
    assert health.json()["models_loaded"] == []
