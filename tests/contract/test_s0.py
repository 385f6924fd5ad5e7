"""Contract S0 over HTTP: photo → check → case → reject → export, against real processes, field by field."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from serving.client import ask
from serving.gateway.access import Role
from serving.gateway.store.repositories import cases, images, labels, predictions, queue
from tests.contract.conftest import OLD_KEY, Opens
from tests.gateway_live import Live, form_of, photograph
from tests.integration.serving.harness import Servers

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


@pytest.fixture
def camera(clinic: Live, client_of: Opens) -> httpx.Client:
    return client_of(clinic)


@pytest.fixture
def reviewer(clinic: Live, client_of: Opens) -> httpx.Client:
    return client_of(clinic, Role.REVIEWER)


@pytest.fixture
def key() -> str:
    return f"case-{uuid.uuid4()}"


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
    answer = httpx.get(f"{clinic.url}/s0/health")
    assert answer.status_code == 200
    body = answer.json()
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
    answer = httpx.request(method, clinic.url + path, headers=headers)
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


def test_a_repeated_request_with_a_key_is_done_once(clinic: Live, camera: httpx.Client, key: str) -> None:
    once = {"Idempotency-Key": key}
    data = photograph(3)
    answers = [
        camera.post("/check-image", files=form_of(data), params={"case_id": key}, headers=once).json()
        for _ in range(3)
    ]
    assert answers[0] == answers[1] == answers[2]
    kept = [camera.post("/upload", files=form_of(data), headers=once).json() for _ in range(2)]
    assert kept[0] == kept[1]
    logged = [camera.post("/cases", json={**CASE, "case_id": key}, headers=once) for _ in range(3)]
    assert [answer.json() for answer in logged] == [logged[0].json()] * 3
    with clinic.scope() as scope:
        assert len(images.of_case(scope, key)) == 1
        assert len(cases.entries(scope, key)) == 1
    other = camera.post("/cases", json={**CASE, "case_id": key, "age": 3}, headers=once)
    assert other.status_code == 409
    other = camera.post("/check-image", files=form_of(photograph(4)), headers=once)
    assert other.status_code == 409


def test_a_case_logged_twice_is_one_case_and_both_words_stay(
    camera: httpx.Client, reviewer: httpx.Client, key: str
) -> None:
    image_id = check(camera, photograph(1), case_id=key)["image_id"]
    first = {**CASE, "case_id": key, "image_id": image_id}
    second = {"case_id": key, "status": "referred", "notes": "seen again", "user_id": 18}
    for said in (first, second):
        assert camera.post("/cases", json=said).json()["message"] == "logged"
    _, lines, _ = export(reviewer, status="referred")
    line = of_case(lines, key)
    assert [entry["case"] for entry in line["entries"]] == [first, second]
    assert line["case"] == second
    assert line["user_id"] == "18"
    assert line["user_role"] == "patient"
    assert line["image_id"] == image_id


def test_sixty_four_at_once_on_one_id(each_clinic: Live, client_of: Opens, key: str) -> None:
    client = client_of(each_clinic)

    def say(number: int) -> int:
        path = "/cases/reject" if number % 4 == 0 else "/cases"
        return client.post(path, json={**CASE, "case_id": key, "number": number}).status_code

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(say, range(64))) == {200}
    _, lines, _ = export(client_of(each_clinic, Role.REVIEWER))
    line = of_case(lines, key)
    said = [entry["case"]["number"] for entry in line["entries"] + line["rejections"]]
    assert sorted(said) == list(range(64))
    assert len(line["rejections"]) == 16


@pytest.mark.parametrize(
    "changed",
    [
        {"case_id": 4711},
        {"predictions": ["nv", 0.9, None, {"label": 3}]},
        {"predictions": None, "symptoms": None, "image_paths": None},
        {"created_at": 1700000000.5, "age": "54-60", "gender": 1, "location": {"lat": 1.5, "lon": -2}},
        {"image_id": "IMG_0001.jpg", "blur_score": "321.5"},
        {"device": {"os": "android"}, "user_id": 17, "status": None},
        {"notes": "Ω≈ç√ 漢字 🩺 \u202e", "predictions": [{"label": "nv", "why": {"deep": [[[[]]]]}}]},
    ],
)
def test_every_form_that_an_old_app_sends_is_kept_as_it_was(
    camera: httpx.Client, reviewer: httpx.Client, key: str, changed: dict[str, Any]
) -> None:
    said = {**CASE, "case_id": key, **changed}
    for path in ("/cases", "/cases/reject"):
        answer = camera.post(path, json=said)
        assert answer.status_code == 200, answer.text
    _, lines, _ = export(reviewer)
    line = of_case(lines, str(said["case_id"]))
    assert line["entries"][-1]["case"] == said
    assert line["rejections"][-1]["case"] == said


def test_an_old_app_may_leave_out_the_content_type(camera: httpx.Client, key: str) -> None:
    answer = camera.post("/cases", content=json.dumps({**CASE, "case_id": key}))
    assert "content-type" not in answer.request.headers
    assert answer.status_code == 200, answer.text


def test_the_least_that_a_case_says_is_its_id(camera: httpx.Client, key: str) -> None:
    assert camera.post("/cases", json={"case_id": key}).status_code == 200
    assert camera.post("/cases/reject", json={"case_id": f"{key}-b"}).status_code == 200


@pytest.mark.parametrize("path", ["/cases", "/cases/reject"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{}", 422),
        (b'{"case_id": ""}', 422),
        (b'{"case_id": null}', 422),
        (b'{"case_id": "a\\u0000b"}', 422),
        (b'{"case_id": "x", "predictions": "nv"}', 422),
        (b'{"case_id": "x", "blur_score": "sharp"}', 422),
        (b'{"case_id": "x", "more": "a\\u0000b"}', 400),
        (b'{"case_id": "x", "more": "\\ud800"}', 400),
        (b'{"case_id": "x", "blur_score": NaN}', 400),
        (b'{"case_id": "x", "more": 1e999}', 400),
        (b'{"case_id": "x", "more": ' + b"[" * 100 + b"]" * 100 + b"}", 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b"nonsense", 422),
        (b"\xff\xfe", 422),
        (b'{"case_id": "x", "more": "' + b"a" * 2**20 + b'"}', 413),
        (b'{"case_id": "' + b"a" * 201 + b'"}', 422),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else str(value),
)
def test_a_bad_case_is_the_senders_error(
    camera: httpx.Client, path: str, content: bytes, status: int
) -> None:
    answer = camera.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert "detail" in answer.json()


def test_the_export_is_for_reviewers_and_of_their_own_tenant(
    clinic: Live, camera: httpx.Client, client_of: Opens, key: str
) -> None:
    camera.post("/cases", json={"case_id": key})
    assert camera.get("/cases/export").status_code == 403
    other = client_of(clinic, Role.REVIEWER, tenant="elsewhere")
    archive = zipfile.ZipFile(io.BytesIO(other.get("/cases/export").content))
    assert archive.namelist() == ["labels.csv", "cases.jsonl"]
    assert archive.read("cases.jsonl") == b""
    assert len(archive.read("labels.csv").splitlines()) == 1


def test_the_exports_filters(camera: httpx.Client, reviewer: httpx.Client, key: str) -> None:
    camera.post("/cases", json={"case_id": key, "status": f"s {key}", "task": f"t {key}"})
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()

    def kept(**query: str) -> list[str]:
        return [line["case_id"] for line in export(reviewer, **query)[1]]

    assert kept(status=f"s {key}") == kept(task=f"t {key}") == [key]
    assert kept(status=f"s {key}", since="2020-01-01") == [key]
    assert kept(status=f"s {key}", since=later) == []
    assert kept(status="rejected", task=f"t {key}") == []
    camera.post("/cases/reject", json={"case_id": key, "status": f"s {key}"})
    assert kept(status="rejected", task=f"t {key}") == [key]


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "1700000000"])
def test_a_since_that_is_no_time_is_refused(reviewer: httpx.Client, since: str) -> None:
    answer = reviewer.get("/cases/export", params={"since": since})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("since is not a date or time")


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
