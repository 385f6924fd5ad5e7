"""Contract S2 over HTTP: patient → predict → history with working addresses, against real processes."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from serving.client import ask
from serving.gateway.retention import Eraser
from serving.gateway.store.repositories import images, patients, predictions, scans
from tests.contract.conftest import Opens
from tests.gateway_live import GRADES, Live, form_of, photograph
from tests.integration.serving.harness import Servers, get, until

SEVERITIES = ["No DR", "Mild", "Moderate", "Severe non-proliferative", "Proliferative"]
ADA = {
    "name": "Ada Lovelace",
    "age": 36,
    "email": "ada@example.org",
    "phone": "+44 20 7946 0000",
    "medical_history": "type 2 diabetes since 2011",
}
PREDICTED = {
    "scan_id", "patient_id", "dr_severity", "confidence_score", "heatmap_url", "image_url", "scan_timestamp",
    "visit_type", "grade", "probabilities", "uncertain", "notes",
}  # fmt: skip
PAST = (PREDICTED | {"id"}) - {"scan_id", "probabilities"}


@pytest.fixture
def app(clinic: Live, client_of: Opens) -> httpx.Client:
    return client_of(clinic)


def new_patient(client: httpx.Client, **more: Any) -> str:
    answer = client.post("/patients/", json={**ADA, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def predict(client: httpx.Client, eye: bytes, **more: Any) -> dict[str, Any]:
    answer = client.post("/predict/", files=form_of(eye, "eye.jpg"), **more)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == PREDICTED
    return body


def fetched(url: str, kind: str) -> bytes:
    """What anybody gets from an address, with no token."""
    answer = get(url, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    return answer.content


def test_the_whole_story(each_clinic: Live, gateway_models: Servers, client_of: Opens) -> None:
    live, client = each_clinic, client_of(each_clinic)
    began = dt.datetime.now(dt.UTC)

    answer = client.post("/patients/", json=ADA)
    assert answer.status_code == 200
    patient = answer.json()
    assert set(patient) == {*ADA, "id", "created_at", "updated_at"}
    assert {name: patient[name] for name in ADA} == ADA
    assert isinstance(patient["id"], str)
    assert began <= dt.datetime.fromisoformat(patient["created_at"]) <= dt.datetime.now(dt.UTC)
    assert client.get(f"/patients/{patient['id']}").json() == patient

    before, after = photograph(11), photograph(12, kind=".png")
    said = {"patient_id": patient["id"], "visit_type": "pre-treatment", "notes": "first visit"}
    by_query = predict(client, before, params=said)
    said = {"patient_id": patient["id"], "visit_type": "follow-up"}
    by_form = predict(client, after, data=said)

    for body, data, kind in ((by_query, before, "image/jpeg"), (by_form, after, "image/png")):
        reply = ask(gateway_models.url, "dr_grading", [data], explain="overlay")
        head = reply.documents()[0]["heads"]["grade"]
        grade = GRADES.index(head["label"])
        assert body["grade"] == grade
        assert body["dr_severity"] == SEVERITIES[grade]
        assert body["confidence_score"] == pytest.approx(head["confidence"], abs=1e-6)
        assert list(body["probabilities"]) == SEVERITIES
        assert list(body["probabilities"].values()) == pytest.approx(list(head["probabilities"].values()))
        assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert body["confidence_score"] == body["probabilities"][body["dr_severity"]]
        assert body["uncertain"] is head["uncertain"]
        assert body["patient_id"] == patient["id"]
        assert began <= dt.datetime.fromisoformat(body["scan_timestamp"]) <= dt.datetime.now(dt.UTC)
        assert fetched(body["image_url"], kind) == data
        heatmap = fetched(body["heatmap_url"], "image/png")
        assert cv2.imdecode(np.frombuffer(heatmap, np.uint8), cv2.IMREAD_COLOR) is not None
        assert heatmap == reply.overlay()
    assert by_query["visit_type"] == "pre-treatment"
    assert by_query["notes"] == "first visit"
    assert by_form["visit_type"] == "follow-up"
    assert by_form["notes"] is None

    answer = client.get(f"/predict/patient/{patient['id']}/history")
    assert answer.status_code == 200
    history = answer.json()
    assert [past["id"] for past in history] == [by_form["scan_id"], by_query["scan_id"]]
    for past, body, data in zip(history, (by_form, by_query), (after, before), strict=True):
        assert set(past) == PAST
        same = PAST - {"id", "image_url", "heatmap_url"}
        assert {name: past[name] for name in same} == {name: body[name] for name in same}
        assert fetched(past["image_url"], "image/png" if data is after else "image/jpeg") == data
        assert cv2.imdecode(np.frombuffer(fetched(past["heatmap_url"], "image/png"), np.uint8), 1) is not None

    with live.scope() as scope:
        (row,) = predictions.listed(scope, scan_id=by_form["scan_id"])
        traced = predictions.trace(scope, row.id)
    origin = ask(gateway_models.url, "dr_grading", [after]).origin
    assert traced["model"]["bundle_digest"] == origin["bundle_digest"] != ""
    assert traced["dataset_digest"] == origin["dataset_digest"] != ""
    assert traced["code_digest"] == origin["code_digest"] != ""
    assert traced["quality"]["verdict"] == "gradable"


def test_health_says_whether_a_model_is_loaded(clinic: Live, clinic_without_models: Live) -> None:
    for live, loaded in ((clinic, True), (clinic_without_models, False)):
        body: dict[str, Any] = {}

        def told(live: Live = live, loaded: bool = loaded, body: dict[str, Any] = body) -> bool:
            answer = get(f"{live.url}/s2/health")
            assert answer.status_code == 200
            body.update(answer.json())
            return body["model_loaded"] is loaded

        # A model that needs more than two seconds to say so counts as away.
        until(told)
        assert set(body) == {"status", "version", "model_loaded"}
        assert body["status"] == ("healthy" if loaded else "degraded")


def test_only_the_name_is_needed(app: httpx.Client) -> None:
    answer = app.post("/patients/", json={"name": "Ada"})
    assert answer.status_code == 200
    body = answer.json()
    assert {name: body[name] for name in ADA} == dict.fromkeys(ADA) | {"name": "Ada"}


def test_what_old_apps_send_beside_it_is_passed_over(app: httpx.Client) -> None:
    answer = app.post("/patients/", json={**ADA, "age": "36", "email": "", "phone": None, "vip": True})
    assert answer.status_code == 200
    assert answer.json()["age"] == 36
    assert "vip" not in answer.json()


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"name": ""}, 422),
        ({"name": "  "}, 422),
        ({"name": None}, 422),
        ({"age": -1}, 422),
        ({"age": 151}, 422),
        ({"age": "old"}, 422),
        ({"age": 1.5}, 422),
        ({"phone": ["1"]}, 422),
        ({"name": "a\0b"}, 400),
        ({"medical_history": "a\0b"}, 400),
        ({"medical_history": "x" * 100_001}, 422),
    ],
)
def test_a_bad_patient_is_the_senders_error(app: httpx.Client, changed: dict[str, Any], status: int) -> None:
    answer = app.post("/patients/", json={**ADA, **changed})
    assert answer.status_code == status
    assert "detail" in answer.json()


def test_the_list_has_pages_in_the_order_of_making(clinic: Live, client_of: Opens) -> None:
    client = client_of(clinic, tenant=f"list-{uuid.uuid4()}")
    assert client.get("/patients/").json() == []
    made = [new_patient(client, name=f"patient {number}") for number in range(12)]

    def listed(**query: int) -> list[str]:
        return [patient["id"] for patient in client.get("/patients/", params=query).json()]

    assert listed() == made[:10]
    assert listed(skip=0, limit=10) == made[:10]
    assert listed(skip=10, limit=10) == made[10:]
    assert listed(skip=3, limit=2) == made[3:5]
    assert listed(limit=1000) == made
    assert listed(skip=10**6) == []
    for bad in ("skip=-1", "limit=-1", "limit=1001", "skip=x", f"skip={2**40}"):
        assert client.get(f"/patients/?{bad}").status_code == 422


def test_the_last_slash_may_be_left_out(app: httpx.Client) -> None:
    patient_id = app.post("/patients", json=ADA).json()["id"]
    assert app.get("/patients", params={"limit": 1}).status_code == 200
    said = {"patient_id": patient_id, "visit_type": "post-treatment"}
    assert app.post("/predict", files=form_of(photograph(1)), params=said).status_code == 200
    assert app.get(f"/patients/{patient_id}/").json()["id"] == patient_id
    assert len(app.get(f"/predict/patient/{patient_id}/history/").json()) == 1
    # And with the system's prefix, where several systems share a port.
    assert app.get(f"/s2/patients/{patient_id}").json()["id"] == patient_id


@pytest.mark.parametrize(
    "patient_id", ["1", "nobody", "00000000-0000-4000-8000-000000000000", "%00", "..%2f", "' OR 1=1 --"]
)
def test_an_unknown_patient_is_not_found(app: httpx.Client, patient_id: str) -> None:
    said = {"patient_id": patient_id, "visit_type": "follow-up"}
    for answer in (
        app.get(f"/patients/{patient_id}"),
        app.get(f"/predict/patient/{patient_id}/history"),
        app.post("/predict/", files=form_of(photograph(1)), params=said),
        app.post("/predict/", files=form_of(photograph(1)), data=said),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] in ("Patient not found", "Not Found")


def test_another_tenants_patient_is_not_found_either(
    clinic: Live, app: httpx.Client, client_of: Opens
) -> None:
    patient_id = new_patient(app)
    other = client_of(clinic, tenant="another clinic")
    said = {"patient_id": patient_id, "visit_type": "follow-up"}
    for answer in (
        other.get(f"/patients/{patient_id}"),
        other.get(f"/predict/patient/{patient_id}/history"),
        other.post("/predict/", files=form_of(photograph(1)), params=said),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"detail": "Patient not found"}


@pytest.mark.parametrize("place", ["params", "data"])
@pytest.mark.parametrize(
    "changed",
    [
        {"visit_type": "yearly"},
        {"visit_type": None},
        {"patient_id": None},
        {"patient_id": None, "visit_type": None},
        {"visit_type": "Follow-up"},
        {"notes": "x" * 20_001},
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_is_said(app: httpx.Client, place: str, changed: dict[str, Any]) -> None:
    said = {"patient_id": new_patient(app), "visit_type": "follow-up", **changed}
    said = {name: value for name, value in said.items() if value is not None}
    answer = app.post("/predict/", files=form_of(photograph(1)), **{place: said})
    assert answer.status_code == 422
    assert {item["loc"][-1] for item in answer.json()["detail"]} == set(changed)


def test_said_in_both_places_it_must_be_the_same(app: httpx.Client) -> None:
    one, other = new_patient(app), new_patient(app)
    said = {"patient_id": one, "visit_type": "follow-up"}
    both = predict(app, photograph(1), params=said, data={**said, "notes": "only here"})
    assert both["notes"] == "only here"
    answer = app.post("/predict/", files=form_of(photograph(1)), params=said, data={"patient_id": other})
    assert answer.status_code == 409
    assert "patient_id" in answer.json()["detail"]


def test_the_image_may_be_the_body_itself(app: httpx.Client) -> None:
    said = {"patient_id": new_patient(app), "visit_type": "follow-up"}
    answer = app.post("/predict/", content=photograph(1), params=said, headers={"content-type": "image/jpeg"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"not an image", "not a JPEG"),
        (photograph(1)[:3000], "damaged"),
        (photograph(1, blurred=True), "blurred"),
        (photograph(1, size=32), "too_small"),
    ],
    ids=["empty", "text", "cut off", "blurred", "too small"],
)
def test_a_bad_image_gets_no_grade_and_leaves_nothing(
    clinic: Live, app: httpx.Client, data: bytes, word: str
) -> None:
    patient_id = new_patient(app)
    answer = app.post(
        "/predict/", files=form_of(data), data={"patient_id": patient_id, "visit_type": "follow-up"}
    )
    assert answer.status_code == 400
    assert list(answer.json()) == ["detail"]
    assert word in answer.json()["detail"]
    assert app.get(f"/predict/patient/{patient_id}/history").json() == []
    with clinic.scope() as scope:
        assert scans.history(scope, patient_id=patient_id) == []


def test_a_form_without_the_file_is_refused(app: httpx.Client) -> None:
    said = {"patient_id": new_patient(app), "visit_type": "follow-up"}
    answer = app.post("/predict/", files={"image": ("x.jpg", photograph(1))}, data=said)
    assert answer.status_code == 400
    assert "file" in answer.json()["detail"]
    assert app.post("/predict/", data=said).status_code == 415


def test_a_repeated_request_with_a_key_is_done_once(clinic: Live, app: httpx.Client) -> None:
    once = {"Idempotency-Key": str(uuid.uuid4())}
    made = [app.post("/patients/", json=ADA, headers=once).json() for _ in range(2)]
    assert made[0] == made[1]
    patient_id = made[0]["id"]
    said = {"patient_id": patient_id, "visit_type": "follow-up"}
    data = photograph(5)

    def send(_: int) -> dict[str, Any]:
        return predict(app, data, data=said, headers=once)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    same = PREDICTED - {"image_url", "heatmap_url"}
    assert len({str({name: answer[name] for name in sorted(same)}) for answer in answers}) == 1
    assert fetched(answers[-1]["image_url"], "image/jpeg") == data
    with clinic.scope() as scope:
        assert len(scans.history(scope, patient_id=patient_id)) == 1
        (scan,) = scans.history(scope, patient_id=patient_id)
        assert images.get(scope, str(scan.image_id)).patient_id == patient_id
        assert images.get(scope, str(scan.overlay_id)).derived_from == scan.image_id
    other = app.post(
        "/predict/", files=form_of(data), data={**said, "visit_type": "post-treatment"}, headers=once
    )
    assert other.status_code == 409


def test_an_erased_patient_is_gone_everywhere(clinic: Live, app: httpx.Client) -> None:
    patient_id, once = new_patient(app), {"Idempotency-Key": str(uuid.uuid4())}
    said = {"patient_id": patient_id, "visit_type": "follow-up"}
    eye = photograph(int(uuid.uuid4()) % 2**32)
    body = predict(app, eye, params=said, headers=once)
    with clinic.scope() as scope:
        tenant = scope.tenant
    with clinic.settings() as settings, contextlib.closing(settings.open_store()) as store:
        report = Eraser(store, settings.open_blobs()).patient(
            tenant, patient_id, actor="test", reason="asked for it"
        )
    assert len(report.erased) == 2
    assert app.get(f"/patients/{patient_id}").status_code == 404
    assert app.get(f"/predict/patient/{patient_id}/history").status_code == 404
    assert app.post("/predict/", files=form_of(eye), params=said, headers=once).status_code == 404
    for url in (body["image_url"], body["heatmap_url"]):
        assert get(url, trust_env=False).status_code == 404


def test_an_altered_address_gives_nothing(app: httpx.Client) -> None:
    said = {"patient_id": new_patient(app), "visit_type": "follow-up"}
    url = httpx.URL(predict(app, photograph(1), params=said)["image_url"])
    later = url.copy_set_param("expires", str(int(url.params["expires"]) + 1))
    assert get(later, trust_env=False).status_code == 403
    assert get(url.copy_remove_param("signature"), trust_env=False).status_code == 403
    assert get(url, trust_env=False).status_code == 200


@pytest.mark.parametrize("path", ["/patients/", "/patients/x", "/predict/patient/x/history"])
def test_without_a_token_nothing_is_told(clinic: Live, path: str) -> None:
    answer = get(clinic.url + path)
    assert answer.status_code == 401
    assert list(answer.json()) == ["detail"]


def test_without_a_model_there_is_no_grade_and_the_rest_goes_on(
    clinic_without_models: Live, client_of: Opens
) -> None:
    client = client_of(clinic_without_models)
    patient_id = new_patient(client)
    said = {"patient_id": patient_id, "visit_type": "follow-up"}
    answer = client.post("/predict/", files=form_of(photograph(1)), params=said)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get(f"/predict/patient/{patient_id}/history").json() == []
    with clinic_without_models.scope() as scope:
        assert patients.get(scope, patient_id).name == ADA["name"]
