"""Scans, jobs, idempotency keys, cases and labels: the steps they may take."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from data.errors import Conflict, NotFound, RequestError, StoreError
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.store import Store
from serving.gateway.store.repositories import cases, idempotency, jobs, labels, patients, predictions, scans
from tests.gateway_rows import ORIGIN, fill, image_of

KEY = {"route": "POST /cases", "owner": "ada"}


def test_a_scan_goes_its_way(store: Store, blobs: BlobStore, tenant: str) -> None:
    kept = keep(blobs, tenant, b"face", "image/png")
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept).id
        scan = scans.add(scope, system="s3", owner="ada").id
        assert scans.get(scope, scan).status == "pending"
        with pytest.raises(Conflict, match="pending"):
            scans.complete(scope, scan, {})
        assert scans.start(scope, scan, image).status == "processing"
        with pytest.raises(Conflict, match="processing"):
            scans.start(scope, scan, image)
        failed = scans.fail(scope, scan, "no_face", "There is no face.")
        assert failed.failure == {"code": "no_face", "message": "There is no face."}
        scans.start(scope, scan, image)
        done = scans.complete(scope, scan, {"confidence": 0.8})
        assert (done.status, done.result, done.failure) == ("completed", {"confidence": 0.8}, None)
        for again in (lambda: scans.start(scope, scan, image), lambda: scans.fail(scope, scan, "x", "y")):
            with pytest.raises(Conflict, match="completed"):
                again()


def test_of_two_uploads_to_one_scan_one_starts(store: Store, blobs: BlobStore, tenant: str) -> None:
    kept = keep(blobs, tenant, b"face", "image/png")
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept).id
        scan = scans.add(scope, system="s3", owner="ada").id
    results: list[str] = []

    def start() -> None:
        try:
            with store.write(tenant, "test") as scope:
                scans.start(scope, scan, image)
        except Conflict:
            results.append("conflict")
        else:
            results.append("started")

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["conflict"] * 4 + ["started"]


def test_history_is_newest_first_and_by_patient(store: Store, tenant: str) -> None:
    with store.write(tenant, "test") as scope:
        one, two = (patients.add(scope, name=name).id for name in "ab")
        made = [scans.add(scope, system="s2", owner="o", patient_id=one).id for _ in range(3)]
        scans.add(scope, system="s2", owner="o", patient_id=two)
    with store.read(tenant) as scope:
        assert [row.id for row in scans.history(scope, patient_id=one)] == made[::-1]
        assert len(scans.history(scope, owner="o", system="s2")) == 4
        assert scans.history(scope, system="s3") == []
        with pytest.raises(NotFound, match="Patient"):
            scans.history(scope, patient_id="nobody")


def test_a_job_is_begun_once_and_taken_over_when_its_lease_is_over(store: Store, tenant: str) -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.clock = lambda: now
    with store.write(tenant, "test") as scope:
        job = jobs.add(scope, "analyse", "scan:x", {"n": 1}).id
    with store.write(tenant, "test") as scope:
        assert [row.id for row in jobs.waiting(scope)] == [job]
        assert jobs.claim(scope, job, lease_s=30).attempts == 1
        with pytest.raises(Conflict, match="running"):
            jobs.claim(scope, job, lease_s=30)
        assert jobs.waiting(scope) == []
    now += dt.timedelta(seconds=31)
    with store.write(tenant, "test") as scope:
        assert [row.id for row in jobs.waiting(scope)] == [job]
        assert jobs.claim(scope, job, lease_s=30).attempts == 2
        for late in (lambda: jobs.renew(scope, job, 1, 30), lambda: jobs.finish(scope, job, 1)):
            with pytest.raises(Conflict, match="Another"):
                late()
        jobs.renew(scope, job, 2, 60)
        assert jobs.finish(scope, job, 2, error="the model was away").status == "failed"
        with pytest.raises(Conflict, match="failed"):
            jobs.claim(scope, job, lease_s=30)


def test_a_repeated_request_is_done_once(store: Store, tenant: str) -> None:
    def request(digest: str = "d1") -> tuple[int, object]:
        with store.write(tenant, "test") as scope:
            earlier = idempotency.claim(scope, "k", **KEY, digest=digest)
            if earlier is not None:
                return earlier.status, earlier.body
            patient = patients.add(scope, name="Ada")
            body = {"id": patient.id}
            idempotency.answer(scope, "k", **KEY, status=200, body=body)
            return 200, body

    results: list[tuple[int, object]] = []
    threads = [threading.Thread(target=lambda: results.append(request())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(result == results[0] for result in results)
    with store.read(tenant) as scope:
        assert len(patients.listed(scope)) == 1
        found = idempotency.find(scope, "k", **KEY, digest="d1")
        assert found is not None
        assert (found.status, found.body) == results[0]
        assert idempotency.find(scope, "k", route="POST /other", owner="ada", digest="d1") is None
        assert idempotency.find(scope, "k", route=KEY["route"], owner="bob", digest="d1") is None
    with pytest.raises(Conflict, match="another request"):
        request("d2")


def test_a_request_that_failed_can_be_repeated(store: Store, tenant: str) -> None:
    def attempt() -> None:
        with store.write(tenant, "test") as scope:
            assert idempotency.claim(scope, "k", **KEY, digest="d") is None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        attempt()
    with store.write(tenant, "test") as scope:
        assert idempotency.claim(scope, "k", **KEY, digest="d") is None


def test_a_key_is_free_again_after_its_time(store: Store, tenant: str) -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.clock = lambda: now
    with store.write(tenant, "test") as scope:
        idempotency.claim(scope, "k", **KEY, digest="d", keep=dt.timedelta(hours=1))
        idempotency.answer(scope, "k", **KEY, status=200, body={"n": 1})
    now += dt.timedelta(hours=2)
    with store.write(tenant, "test") as scope:
        assert idempotency.find(scope, "k", **KEY, digest="other") is None
        assert idempotency.claim(scope, "k", **KEY, digest="other") is None
        idempotency.answer(scope, "k", **KEY, status=201, body={"n": 2})
    now += dt.timedelta(days=2)
    with store.write(tenant, "test") as scope:
        assert idempotency.clear_expired(scope) == 1
    with pytest.raises(RequestError), store.write(tenant, "test") as scope:
        idempotency.claim(scope, "\0", **KEY, digest="d")


def test_a_case_said_again_keeps_both_entries(store: Store, blobs: BlobStore, tenant: str) -> None:
    world = fill(store, blobs, tenant)
    with store.write(tenant, "test") as scope:
        cases.log(scope, world.case, {"status": "later", "image_id": "not one of ours"}, by="bob")
    with store.read(tenant) as scope:
        case = cases.get(scope, world.case)
        # The image stays linked, and with it the patient.
        assert (case.status, case.image_id, case.patient_id, case.rejected) == (
            "later",
            world.image,
            world.patient,
            True,
        )
        assert [entry.by for entry in cases.entries(scope, world.case)] == ["ada", "bob"]
        assert [row.reason for row in cases.rejections(scope, world.case)] == ["wrong"]


def test_cases_are_listed_by_what_an_export_asks(store: Store, tenant: str) -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.clock = lambda: now
    with store.write(tenant, "test") as scope:
        cases.log(scope, "old", {"status": "success"}, by="o", task="acne")
    now += dt.timedelta(days=1)
    with store.write(tenant, "test") as scope:
        cases.log(scope, "new", {"status": "uncertain"}, by="o", task="skin_lesion")
        cases.reject(scope, "never logged", {"reason": "blurred"}, by="o")

    def keys(**asked: object) -> list[str]:
        with store.read(tenant) as scope:
            return [case.key for case in cases.listed(scope, **asked)]  # type: ignore[arg-type]

    assert keys() == ["old", "new", "never logged"]
    assert keys(since=now) == ["new", "never logged"]
    assert keys(status="uncertain") == keys(task="skin_lesion") == ["new"]
    assert keys(rejected=True) == keys(status="rejected") == ["never logged"]
    with store.read(tenant) as scope:
        first = cases.listed(scope, limit=1)[0]
    assert keys(after=first.number) == ["new", "never logged"]


def test_an_answer_is_traced_to_bundle_data_set_and_code(store: Store, blobs: BlobStore, tenant: str) -> None:
    world = fill(store, blobs, tenant)
    with store.read(tenant) as scope:
        trace = predictions.trace(scope, world.prediction)
        assert [row.id for row in predictions.listed(scope, bundle_digest=ORIGIN.bundle_digest)] == [
            world.prediction
        ]
        assert predictions.listed(scope, image_id=world.image, scan_id=world.scan)
    assert trace["model"]["bundle_digest"] == ORIGIN.bundle_digest
    assert trace["model"]["version"] == "3"
    assert (trace["dataset_digest"], trace["code_digest"]) == (ORIGIN.dataset_digest, ORIGIN.code_digest)
    assert trace["image"]["sha256"] == world.sha256
    assert trace["quality"]["verdict"] == "gradable"


@pytest.mark.parametrize("name", predictions.Origin.__slots__)
def test_a_prediction_that_can_not_be_traced_is_not_kept(
    store: Store, blobs: BlobStore, tenant: str, name: str
) -> None:
    from dataclasses import replace

    world = fill(store, blobs, tenant)
    with pytest.raises(StoreError, match=name), store.write(tenant, "test") as scope:
        predictions.add(
            scope, replace(ORIGIN, **{name: ""}), image_id=world.image, verdict="gradable", answer={}
        )


def test_labels(store: Store, blobs: BlobStore, tenant: str) -> None:
    world = fill(store, blobs, tenant)
    with store.write(tenant, "test") as scope:
        second = labels.add(
            scope, image_id=world.image, task="t", head="h", reader="bob", cannot_grade="too dark"
        )
        for values in ({}, {"value": "a", "cannot_grade": "b"}):
            with pytest.raises(RequestError, match="either"):
                labels.add(scope, image_id=world.image, task="t", head="h", reader="bob", **values)
        labels.withdraw(scope, world.label)
        labels.withdraw(scope, world.label)
        assert [row.id for row in labels.listed(scope, image_id=world.image)] == [second.id]
        assert len(labels.listed(scope, withdrawn=True)) == 2
        assert labels.listed(scope, reader="bob", task="t")[0].cannot_grade == "too dark"
