"""S0's cases: what apps say of them, twice, at once or wrongly, and what the export has of it."""

from __future__ import annotations

import datetime as dt
import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from serving.gateway.access import Role
from serving.gateway.store.repositories import cases, images
from tests.contract.conftest import Opens
from tests.contract.s0_cases import CASE, check, export, of_case
from tests.gateway_live import Live, form_of, photograph


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
        while True:
            answer = client.post(path, json={**CASE, "case_id": key, "number": number})
            # A write that is not done within ten seconds is refused whole, and is to be sent again.
            if answer.status_code != 503:
                return answer.status_code
            time.sleep(int(answer.headers["retry-after"]))

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
