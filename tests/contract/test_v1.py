"""/v1, our own API, against a real gateway over real predictors: each noun, and who may do what."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from itertools import pairwise

import pytest

from serving.gateway.access import Role
from serving.gateway.store.repositories import jobs, scans
from tests.contract.conftest import _server_environment
from tests.contract.v1_nouns import NOBODY, V1, check_prediction, is_id, is_moment, pages, patient_of, refused
from tests.gateway_live import GRADES, form_of, live_gateway, photograph
from tests.integration.serving.harness import Servers, get


@pytest.fixture(scope="module", params=["sqlite and a folder", "postgresql and s3"])
def v1(
    request: pytest.FixtureRequest, gateway_models: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[V1]:
    where = {} if request.param.startswith("sqlite") else _server_environment()
    folder = tmp_path_factory.mktemp("v1")
    with live_gateway(folder, gateway_models.url, GATEWAY_SYSTEMS="s0,v1", **where) as live:
        clients = [live.client(live.token(role)) for role in (Role.APP, Role.REVIEWER, Role.ADMIN)]
        try:
            yield V1(live, *clients)
        finally:
            for client in clients:
                client.close()


def test_models_are_named_with_what_made_them(v1: V1) -> None:
    answer = v1.app.get("/v1/models")
    assert answer.status_code == 200, answer.text
    found = {item["name"]: item for item in answer.json()["items"]}
    assert {"dr_grading", "skin_lesion", "acne", "skin_condition", "skin_profile"} <= set(found)
    model = found["dr_grading"]
    assert model["task"] == "dr_grading"
    assert model["version"] == "1"
    assert model["classes"] == {"grade": list(GRADES)}
    assert model["titles"] == {"grade": {}}
    titles = found["skin_lesion"]["titles"]["diagnosis"]
    assert (titles["mel"], titles["nv"], "akiec" in titles) == ("Melanoma", "Melanocytic naevus", False)
    assert model["digest"].startswith("sha256:")
    assert model["dataset_digest"]
    assert model["code_digest"]
    assert model["mode"] is None


def test_an_image_is_kept_and_its_address_gives_it(v1: V1) -> None:
    data = photograph(1)
    made = v1.app.post("/v1/images", content=data, headers={"content-type": "image/jpeg"})
    assert made.status_code == 201, made.text
    image = made.json()
    assert is_id(image["id"])
    assert is_moment(image["created_at"])
    assert is_moment(image["url_expires_at"])
    assert image["sha256"] == hashlib.sha256(data).hexdigest()
    assert (image["kind"], image["media_type"], image["bytes"]) == ("original", "image/jpeg", len(data))
    assert (image["width"], image["height"]) == (320, 320)
    assert (image["patient_id"], image["derived_from"]) == (None, None)
    assert get(image["url"], trust_env=False).content == data
    again = v1.reviewer.get(f"/v1/images/{image['id']}")
    assert {k: v for k, v in again.json().items() if "url" not in k} == {
        k: v for k, v in image.items() if "url" not in k
    }
    patient = patient_of(v1.app)
    for where in ({"data": {"patient_id": patient["id"]}}, {"params": {"patient_id": patient["id"]}}):
        theirs = v1.app.post("/v1/images", files=form_of(data), **where)  # type: ignore[arg-type]
        assert theirs.json()["patient_id"] == patient["id"]
    refused(v1.app.post("/v1/images", files=form_of(data), data={"patient_id": NOBODY}), 404, "not_found")
    refused(v1.app.post("/v1/images", files=form_of(data), data={"patient_id": "7"}), 422, "invalid")
    refused(v1.app.post("/v1/images", files=form_of(b"no image")), 415, "not_an_image")
    refused(v1.app.post("/v1/images", json={}), 415, "wrong_type")
    refused(v1.app.get(f"/v1/images/{NOBODY}"), 404, "not_found")
    details = refused(v1.app.get("/v1/images/7"), 422, "invalid")["details"]
    assert details[0]["loc"] == ["path", "image_id"]


def test_one_key_makes_one_image(v1: V1) -> None:
    headers = {"idempotency-key": str(uuid.uuid4())}
    first, second = (v1.app.post("/v1/images", files=form_of(photograph(2)), headers=headers) for _ in "12")
    assert first.status_code == second.status_code == 201
    assert first.json()["id"] == second.json()["id"]
    assert get(second.json()["url"], trust_env=False).status_code == 200
    other = v1.app.post("/v1/images", files=form_of(photograph(3)), headers=headers)
    refused(other, 409, "conflict")


def test_a_prediction_in_every_form_of_asking(v1: V1) -> None:
    data = photograph(4, size=480)
    patient = patient_of(v1.app, "Grace H.")
    image = v1.app.post("/v1/images", files=form_of(data)).json()
    kept = v1.app.post(
        "/v1/predictions",
        json={"task": "dr_grading", "image_id": image["id"], "explain": True, "patient_id": patient["id"]},
    )
    assert kept.status_code == 201, kept.text
    body = kept.json()
    check_prediction(body)
    assert body["image_id"] == image["id"]
    # Whose it is was told now: an erasure finds it from here on.
    assert body["patient_id"] == patient["id"]
    assert v1.app.get(f"/v1/images/{image['id']}").json()["patient_id"] == patient["id"]
    overlay = body["overlay"]
    assert get(overlay["url"], trust_env=False).content.startswith(b"\x89PNG")
    drawn = v1.app.get(f"/v1/images/{overlay['image_id']}").json()
    assert (drawn["kind"], drawn["derived_from"]) == ("overlay", image["id"])

    form = v1.app.post(
        "/v1/predictions", files=form_of(data), data={"task": "dr_grading", "explain": "false"}
    )
    raw = v1.reviewer.post(
        "/v1/predictions", params={"task": "dr_grading"}, content=data, headers={"content-type": "image/jpeg"}
    )
    for answer in (form, raw):
        assert answer.status_code == 201, answer.text
        check_prediction(answer.json())
        assert answer.json()["overlay"] is None
        assert answer.json()["heads"] == body["heads"]

    again = v1.app.get(f"/v1/predictions/{body['id']}").json()
    assert {**again, "overlay": None} == {**body, "overlay": None}
    trace = v1.app.get(body["trace"]).json()
    assert trace["prediction_id"] == body["id"]
    assert trace["image"] == {"id": image["id"], "sha256": image["sha256"], "media_type": "image/jpeg"}
    assert trace["model"]["bundle_digest"] == body["model"]["digest"]
    assert trace["dataset_digest"] == body["model"]["dataset_digest"]
    assert trace["answer"]["heads"] == body["heads"]


def test_an_image_that_cant_be_graded_has_a_verdict_and_no_label(v1: V1) -> None:
    blurred = photograph(5, blurred=True)
    answer = v1.app.post(
        "/v1/predictions", files=form_of(blurred), data={"task": "dr_grading", "explain": "true"}
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["quality"]["verdict"] != "gradable"
    assert body["quality"]["reasons"]
    assert (body["heads"], body["overlay"], body["uncertain"]) == ({}, None, True)


def test_what_a_prediction_refuses(v1: V1) -> None:
    image = v1.app.post("/v1/images", files=form_of(photograph(6))).json()["id"]
    ask = v1.app.post
    refused(ask("/v1/predictions", json={"task": "nothing", "image_id": image}), 404, "not_found")
    refused(ask("/v1/predictions", json={"task": "dr_grading", "image_id": NOBODY}), 404, "not_found")
    for wrong in (
        {},
        {"task": "dr_grading"},
        {"task": "../acne", "image_id": image},
        {"task": "dr_grading", "image_id": "7"},
        {"task": "dr_grading", "image_id": image, "explain": "perhaps"},
        {"task": "dr_grading", "image_id": image, "unknown": 1},
    ):
        refused(ask("/v1/predictions", json=wrong), 422, "invalid")
    refused(ask("/v1/predictions", files=form_of(photograph(6))), 422, "invalid")
    refused(
        ask("/v1/predictions", content=b"[", headers={"content-type": "application/json"}), 422, "invalid"
    )
    refused(ask("/v1/predictions", content=b"x", headers={"content-type": "text/plain"}), 415, "wrong_type")
    refused(
        ask("/v1/predictions", files=form_of(b"GIF89a"), data={"task": "dr_grading"}), 422, "image_damaged"
    )
    one, two = patient_of(v1.app, "One"), patient_of(v1.app, "Two")
    first = {"task": "dr_grading", "image_id": image, "patient_id": one["id"]}
    assert ask("/v1/predictions", json=first).status_code == 201
    refused(ask("/v1/predictions", json={**first, "patient_id": two["id"]}), 409, "conflict")


def test_one_key_is_one_prediction(v1: V1) -> None:
    headers = {"idempotency-key": str(uuid.uuid4())}
    body = {"data": {"task": "dr_grading", "explain": "true"}, "headers": headers}
    first, second = (
        v1.app.post("/v1/predictions", files=form_of(photograph(7)), **body)  # type: ignore[arg-type]
        for _ in "12"
    )
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["image_id"] == second.json()["image_id"]
    assert get(second.json()["overlay"]["url"], trust_env=False).status_code == 200


def test_patients_come_in_pages_and_go_for_good(v1: V1) -> None:
    made = [patient_of(v1.app, f"Patient {n}", age=40 + n) for n in range(5)]
    assert is_moment(made[0]["created_at"])
    assert v1.app.get(f"/v1/patients/{made[0]['id']}").json() == made[0]
    listed = pages(v1.app, "/v1/patients", limit=2)
    assert [item for item in listed if item["name"].startswith("Patient ")] == made
    assert len({item["id"] for item in listed}) == len(listed)
    for wrong in ({"limit": 0}, {"limit": 1000}, {"after": "x"}, {"after": "9" * 19}, {"limit": [1, 2]}):
        refused(v1.app.get("/v1/patients", params=wrong), 422, "invalid")
    for bad in (
        {},
        {"name": " "},
        {"name": "x", "age": -1},
        {"name": "x", "age": "61"},
        {"name": "x", "nickname": "y"},
    ):
        refused(v1.app.post("/v1/patients", json=bad), 422, "invalid")

    gone = made[1]
    key = {"idempotency-key": str(uuid.uuid4())}
    sent = {"files": form_of(photograph(8)), "data": {"patient_id": gone["id"]}, "headers": key}
    image = v1.app.post("/v1/images", **sent).json()  # type: ignore[arg-type]
    asked = v1.app.post("/v1/predictions", json={"task": "dr_grading", "image_id": image["id"]}).json()
    refused(v1.app.delete(f"/v1/patients/{gone['id']}"), 403, "not_allowed")
    refused(v1.reviewer.delete(f"/v1/patients/{gone['id']}"), 403, "not_allowed")
    answer = v1.admin.delete(f"/v1/patients/{gone['id']}")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["finished"] is True
    assert is_moment(report["finished_at"])
    assert report["erased"] == [image["sha256"]]
    assert report["counts"]["patients"] == report["counts"]["images"] == report["counts"]["predictions"] == 1
    for path in (
        f"/v1/patients/{gone['id']}", f"/v1/images/{image['id']}", f"/v1/predictions/{asked['id']}",
        f"/v1/predictions/{asked['id']}/trace",
    ):  # fmt: skip
        refused(v1.app.get(path), 404, "not_found")
    assert get(image["url"], trust_env=False).status_code in (403, 404)
    sent["files"] = form_of(photograph(8))
    refused(v1.app.post("/v1/images", **sent), 410, "gone")  # type: ignore[arg-type]
    refused(v1.admin.delete(f"/v1/patients/{gone['id']}"), 404, "not_found")
    assert v1.admin.get(f"/v1/erasures/{report['id']}").json() == report


def test_cases_with_everything_that_was_said(v1: V1) -> None:
    app = v1.app
    checked = app.post("/check-image", params={"case_id": "v1-a"}, files=form_of(photograph(9, size=480)))
    assert checked.status_code == 200, checked.text
    said = {"case_id": "v1-a", "image_id": checked.json()["image_id"], "status": "success", "user_id": "u-9"}
    assert app.post("/cases", json=said).status_code == 200
    assert app.post("/cases/reject", json={**said, "reason": "wrong"}).status_code == 200
    assert app.post("/cases", json={"case_id": "v1/b", "status": "uncertain"}).status_code == 200
    found = pages(v1.reviewer, "/v1/cases", limit=1)
    assert {"v1-a", "v1/b"} <= {item["key"] for item in found}
    (case,) = pages(v1.reviewer, "/v1/cases", key="v1-a")
    assert case["rejected"] is True
    assert case["image_id"] == checked.json()["image_id"]
    assert [item["key"] for item in pages(v1.reviewer, "/v1/cases", rejected=True)] == ["v1-a"]
    assert "v1/b" in [item["key"] for item in pages(v1.reviewer, "/v1/cases", status="uncertain")]
    assert pages(v1.reviewer, "/v1/cases", since="2100-01-01T00:00:00Z") == []
    whole = v1.reviewer.get(f"/v1/cases/{case['id']}").json()
    assert [entry["payload"]["case_id"] for entry in whole["entries"]][-1] == "v1-a"
    assert [rejection["reason"] for rejection in whole["rejections"]] == ["wrong"]
    assert whole["images"] == [checked.json()["image_id"]]
    refused(v1.reviewer.get(f"/v1/cases/{NOBODY}"), 404, "not_found")
    for since in ("yesterday", "0.5", "2026-11-01", "2026-11-01T08:30:00"):
        refused(v1.reviewer.get("/v1/cases", params={"since": since}), 422, "invalid")
    assert "v1-a" in v1.reviewer.get("/v1/cases?since=2026-11-01T08:30:00+01:00").text
    refused(app.get("/v1/cases"), 403, "not_allowed")

    erased = v1.admin.post("/v1/erasures", json={"user": "u-9", "reason": "asked by letter"})
    assert erased.status_code == 201, erased.text
    assert erased.json()["about"] == "user:u-9"
    refused(v1.reviewer.get(f"/v1/cases/{case['id']}"), 404, "not_found")


def test_erasures_are_an_admins_and_say_one_thing(v1: V1) -> None:
    assert v1.app.post("/cases", json={"case_id": "v1-c", "status": "success"}).status_code == 200
    body = {"case": "v1-c", "reason": "test"}
    refused(v1.reviewer.post("/v1/erasures", json=body), 403, "not_allowed")
    for wrong in (
        {"reason": "x"}, {"case": "v1-c"}, {**body, "user": "u"}, {**body, "reason": " "},
        {**body, "more": 1}, {"case": None, "reason": "x"},
    ):  # fmt: skip
        refused(v1.admin.post("/v1/erasures", json=wrong), 422, "invalid")
    made = v1.admin.post("/v1/erasures", json=body)
    assert made.status_code == 201
    refused(v1.admin.post("/v1/erasures", json=body), 404, "not_found")
    assert made.json() in pages(v1.admin, "/v1/erasures", limit=1)
    refused(v1.admin.get(f"/v1/erasures/{NOBODY}"), 404, "not_found")


def test_the_audit_log_is_sound_and_in_order(v1: V1) -> None:
    v1.admin.post("/v1/erasures", json={"user": "nobody-yet", "reason": "test"})
    entries = pages(v1.admin, "/v1/audit", limit=3)
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    for one, two in pairwise(entries):
        assert two["prev"] == one["hash"]
    ends = pages(v1.admin, "/v1/audit", action="erasure.end", about="user:nobody-yet")
    assert [entry["action"] for entry in ends] == ["erasure.end"]
    assert ends[0]["actor"].startswith("token:")
    sound = v1.admin.get("/v1/audit/verify").json()
    assert sound == {"sound": True, "seq": entries[-1]["seq"], "hash": entries[-1]["hash"], "problems": []}
    place = f"{entries[1]['seq']}:{entries[1]['hash']}"
    assert v1.admin.get("/v1/audit/verify", params={"kept": place}).json()["sound"] is True
    altered = v1.admin.get("/v1/audit/verify", params={"kept": f"2:{'0' * 64}"}).json()
    assert altered["sound"] is False
    assert len(altered["problems"]) == 1
    refused(v1.admin.get("/v1/audit/verify", params={"kept": "2"}), 422, "invalid")
    for client in (v1.app, v1.reviewer):
        refused(client.get("/v1/audit"), 403, "not_allowed")
        refused(client.get("/v1/audit/verify"), 403, "not_allowed")


def test_labels_are_a_readers(v1: V1) -> None:
    asked = v1.app.post("/v1/predictions", files=form_of(photograph(10)), data={"task": "dr_grading"}).json()
    said = {
        "image_id": asked["image_id"],
        "prediction_id": asked["id"],
        "task": "dr_grading",
        "head": "grade",
    }
    key = {"idempotency-key": str(uuid.uuid4())}
    made = v1.reviewer.post("/v1/labels", json={**said, "value": "mild", "comment": "2 dots"}, headers=key)
    assert made.status_code == 201, made.text
    label = made.json()
    assert (label["value"], label["cannot_grade"], label["withdrawn_at"]) == ("mild", None, None)
    again = v1.reviewer.post("/v1/labels", json={**said, "value": "mild", "comment": "2 dots"}, headers=key)
    assert again.json() == label
    unsure = v1.reviewer.post("/v1/labels", json={**said, "cannot_grade": "blurred"})
    assert unsure.status_code == 201
    listed = pages(v1.reviewer, "/v1/labels", image_id=asked["image_id"], limit=1)
    assert [item["id"] for item in listed] == [label["id"], unsure.json()["id"]]
    assert pages(v1.reviewer, "/v1/labels", reader=label["reader"], task="dr_grading") == listed

    for wrong in (
        said, {**said, "value": "mild", "cannot_grade": "blurred"}, {**said, "value": "mild", "who": "me"},
    ):  # fmt: skip
        refused(v1.reviewer.post("/v1/labels", json=wrong), 422, "invalid")
    # What the model that serves doesn't know.
    for other in ({**said, "value": "huge"}, {**said, "head": "colour", "value": "mild"}):
        refused(v1.reviewer.post("/v1/labels", json=other), 409, "conflict")
    refused(
        v1.reviewer.post("/v1/labels", json={**said, "value": "mild", "image_id": NOBODY}), 404, "not_found"
    )
    refused(v1.app.post("/v1/labels", json={**said, "value": "mild"}), 403, "not_allowed")

    with v1.live.client(v1.live.token(Role.REVIEWER)) as other:
        refused(other.delete(f"/v1/labels/{label['id']}"), 403, "not_allowed")
    taken = v1.reviewer.delete(f"/v1/labels/{label['id']}").json()
    assert is_moment(taken["withdrawn_at"])
    assert v1.admin.delete(f"/v1/labels/{label['id']}").json() == taken
    left = pages(v1.reviewer, "/v1/labels", image_id=asked["image_id"])
    assert [item["id"] for item in left] == [unsure.json()["id"]]
    assert len(pages(v1.reviewer, "/v1/labels", image_id=asked["image_id"], withdrawn=True)) == 2
    refused(v1.reviewer.delete(f"/v1/labels/{NOBODY}"), 404, "not_found")


def test_a_job_says_how_far_it_is(v1: V1) -> None:
    with v1.live.scope() as scope:
        scan = scans.add(scope, system="s3", owner="somebody")
        job = jobs.add(scope, "analyse", f"scan:{scan.id}")
    body = v1.app.get(f"/v1/jobs/{job.id}").json()
    assert (body["kind"], body["status"], body["attempts"], body["error"]) == ("analyse", "queued", 0, None)
    assert is_moment(body["created_at"])
    assert (body["started_at"], body["finished_at"]) == (None, None)
    refused(v1.app.get(f"/v1/jobs/{NOBODY}"), 404, "not_found")


def test_a_face_is_its_owners_and_another_tenants_is_nobodys(v1: V1) -> None:
    from serving.gateway.store.repositories import images

    made = v1.app.post("/v1/images", files=form_of(photograph(11))).json()
    with v1.live.scope() as scope:
        row = images.get(scope, made["id"])
        row.system, row.owner = "s3", "somebody-else"
    refused(v1.app.get(f"/v1/images/{made['id']}"), 403, "not_allowed")
    asked = {"task": "acne", "image_id": made["id"]}
    refused(v1.app.post("/v1/predictions", json=asked), 403, "not_allowed")
    assert v1.reviewer.get(f"/v1/images/{made['id']}").status_code == 200
    answered = v1.reviewer.post("/v1/predictions", json={**asked, "explain": True}).json()
    refused(v1.app.get(f"/v1/predictions/{answered['id']}"), 403, "not_allowed")
    refused(v1.app.get(f"/v1/predictions/{answered['id']}/trace"), 403, "not_allowed")
    if answered["overlay"] is not None:
        refused(v1.app.get(f"/v1/images/{answered['overlay']['image_id']}"), 403, "not_allowed")
    with v1.live.client(v1.live.token(Role.ADMIN, tenant="clinic-b")) as other:
        for path in (f"/v1/images/{made['id']}", f"/v1/predictions/{answered['id']}"):
            refused(other.get(path), 404, "not_found")
        assert pages(other, "/v1/patients") == []
        assert pages(other, "/v1/cases") == []
        assert pages(other, "/v1/erasures") == []


def test_nobody_comes_in_without_a_token(v1: V1) -> None:
    with v1.live.client() as nobody:
        document = nobody.get("/openapi.json").json()
        paths = [path for path in document["paths"] if path.startswith("/v1/")]
        assert len(paths) >= 15
        for path in paths:
            for method in document["paths"][path]:
                answer = nobody.request(method, re.sub(r"{\w+}", NOBODY, path))
                refused(answer, 401, "token_refused")
                assert answer.headers["www-authenticate"] == "Bearer"
