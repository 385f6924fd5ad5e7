"""Erasing: it reaches everything, leaves a proof, and spares what is others'."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.errors import Conflict, NotFound, RetidermError, StoreError
from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.retention import Eraser, LearnedVersion
from serving.gateway.store import Store
from serving.gateway.store.repositories import (
    audit,
    cases,
    erasures,
    idempotency,
    images,
    labels,
    patients,
    scans,
)
from tests.gateway_rows import WHO, World, bystander, dump, fill, image_of, tenant_of

VERSION = LearnedVersion("skin_lesion", "4", "sha256:" + "d" * 64)


def test_a_patient_is_erased_everywhere(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    bob = bystander(store, blobs, tenant)
    report = eraser.patient(tenant, world.patient, **WHO)
    assert report.finished
    assert report.erased == tuple(sorted([world.sha256, world.overlay_sha256]))
    assert report.kept_for_others == ()
    # Nobody was asked yet.
    assert report.learned is None
    assert report.counts == {
        "patients": 1,
        "images": 2,
        "scans": 1,
        "queue": 1,
        "features": 1,
        "predictions": 1,
        "cases": 1,
        "case_entries": 1,
        "rejections": 1,
        "labels": 1,
        "jobs": 1,
        "answers": 1,
    }
    assert blobs.size(tenant, world.sha256) is None
    assert blobs.size(tenant, world.overlay_sha256) is None
    rows = dump(store, tenant)
    left = repr({name: found for name, found in rows.items() if name not in ("audit_log", "erasures")})
    for said in ("Ada", "ada@example.org", world.image, world.scan, world.prediction, world.case_row):
        assert said not in left
    # The key stays, and neither tells anything nor brings the patient back.
    with store.read(tenant) as scope:
        again = idempotency.find(scope, "key-1", route="POST /patients/", owner="ada", digest="d")
        assert again == idempotency.Answer(410, None)
        assert patients.get(scope, bob).name == "Bob"
        assert len(scans.history(scope, patient_id=bob)) == len(labels.listed(scope)) == 1
        for call in (
            lambda: patients.get(scope, world.patient),
            lambda: cases.get(scope, world.case),
            lambda: images.get(scope, world.image),
            lambda: labels.add(scope, image_id=world.image, task="t", head="h", value="v", reader="r"),
        ):
            with pytest.raises(NotFound):
                call()
    with pytest.raises(NotFound):
        eraser.patient(tenant, world.patient, **WHO)


def test_no_byte_of_it_is_left_in_sqlites_files(sqlite_store: Store, blobs: FolderBlobs) -> None:
    tenant = tenant_of(sqlite_store, "clinic")
    world = fill(sqlite_store, blobs, tenant)
    path = sqlite_store.url.database
    assert path is not None

    def found() -> bool:
        files = [Path(path + end) for end in ("", "-wal", "-shm")]
        assert all(file.stat().st_mode & 0o077 == 0 for file in files if file.exists())
        return any(b"ada@example.org" in file.read_bytes() for file in files if file.exists())

    assert found()
    Eraser(sqlite_store, blobs).patient(tenant, world.patient, **WHO)
    assert not found()


def test_the_proof_is_in_the_audit_log(store: Store, tenant: str, world: World, eraser: Eraser) -> None:
    report = eraser.patient(tenant, world.patient, **WHO)
    assert eraser.ask(tenant, lambda contents: {world.sha256: [VERSION], "0" * 64: [VERSION]}) == 1
    assert eraser.ask(tenant, lambda contents: {}) == 0
    with store.read(tenant) as scope:
        begun, ended, learned = audit.entries(scope, about=f"patient:{world.patient}")
        assert audit.verify(scope) == []
        assert erasures.get(scope, report.erasure_id).reason == WHO["reason"]
    assert (begun.action, ended.action) == ("erasure.begin", "erasure.end")
    assert begun.actor == ended.actor == "token:1"
    told = audit.data_of(ended)
    assert told["erased"] == list(report.erased)
    assert learned.action == "erasure.learned"
    assert audit.data_of(learned)["versions"] == [
        {"model": "skin_lesion", "version": "4", "dataset_digest": VERSION.dataset_digest}
    ]
    assert told["counts"]["labels"] == 1
    assert "Ada" not in repr((begun.data, ended.data))


def test_the_next_data_set_leaves_it_out_until_it_is_sent_again(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    report = eraser.patient(tenant, world.patient, **WHO)
    with store.read(tenant) as scope:
        assert erasures.excluded(scope) == sorted([world.sha256, world.overlay_sha256])
        found = erasures.contents(scope, report.erasure_id)
        assert {item.sha256: item.labelled for item in found} == {
            world.sha256: True,
            world.overlay_sha256: False,
        }
    kept = keep(blobs, tenant, b"image a", "image/jpeg")
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
        assert erasures.excluded(scope) == [world.overlay_sha256]


def test_who_had_learned_is_never_guessed(store: Store, tenant: str, world: World, eraser: Eraser) -> None:
    def away(contents: Sequence[str]) -> dict[str, list[LearnedVersion]]:
        raise StoreError("the registry is away")

    eraser.patient(tenant, world.patient, **WHO)
    with pytest.raises(StoreError):
        eraser.ask(tenant, away)
    with store.read(tenant) as scope:
        (waiting,) = erasures.unasked(scope)
        assert waiting.learned is None
    assert eraser.ask(tenant, lambda contents: {}) == 1
    with store.read(tenant) as scope:
        assert erasures.get(scope, waiting.id).learned == {"known": True, "versions": []}


def test_a_patient_without_images_has_taught_nobody(store: Store, tenant: str, eraser: Eraser) -> None:
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
    report = eraser.patient(tenant, patient, **WHO)
    assert (report.learned, report.erased, report.counts["patients"]) == ((), (), 1)


def test_a_user_and_a_case(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    bystander(store, blobs, tenant)
    assert eraser.case(tenant, world.case, **WHO).counts["images"] == 2
    with store.read(tenant) as scope:
        # The examination goes with its image; the patient stays.
        assert patients.get(scope, world.patient).name == "Ada"
        assert scans.history(scope, patient_id=world.patient) == []
    report = eraser.user(tenant, "bob", **WHO)
    assert (report.counts["cases"], report.counts["scans"], report.counts["images"]) == (1, 1, 1)
    assert list(blobs.listed(tenant)) == []
    for call in (
        lambda: eraser.case(tenant, "nobody's", **WHO),
        lambda: eraser.user(tenant, "\0", **WHO),
        lambda: eraser.patient(tenant, "nobody", **WHO),
    ):
        with pytest.raises(RetidermError):
            call()


def test_a_label_elsewhere_that_names_an_answer_is_in_nobodys_way(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    bystander(store, blobs, tenant)
    with store.write(tenant, "test") as scope:
        (label,) = [
            row for row in labels.listed(scope) if row.reader == "eve" and row.image_id != world.image
        ]
        with pytest.raises(Conflict, match="another image"):
            labels.add(
                scope,
                image_id=label.image_id,
                prediction_id=world.prediction,
                task="t",
                head="h",
                value="v",
                reader="eve",
            )
        # As older versions took it.
        label.prediction_id = world.prediction
    assert eraser.patient(tenant, world.patient, **WHO).finished
    with store.read(tenant) as scope:
        (left,) = labels.listed(scope)
        assert (left.id, left.prediction_id) == (label.id, None)


def test_what_is_added_while_its_patient_is_erased_is_refused(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    """The scan's transaction has seen the patient, and commits after the erasure."""
    if store.is_sqlite:
        pytest.skip("SQLite's writers follow one another")
    seen, erased = threading.Event(), threading.Event()
    result: list[object] = []

    def late() -> None:
        try:
            with store.write(tenant, "late") as scope:
                patients.get(scope, world.patient)
                seen.set()
                assert erased.wait(240)
                scans.add(scope, system="s2", owner="late", patient_id=world.patient)
        except RetidermError as error:
            result.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    assert seen.wait(240)
    eraser.patient(tenant, world.patient, **WHO)
    erased.set()
    thread.join()
    assert len(result) == 1
    assert isinstance(result[0], Conflict | NotFound)


def test_another_tenants_patient_can_not_be_erased(
    tenant: str, other: str, world: World, eraser: Eraser
) -> None:
    for call in (
        lambda: eraser.patient(other, world.patient, **WHO),
        lambda: eraser.case(other, world.case, **WHO),
    ):
        with pytest.raises(NotFound):
            call()
    assert set(eraser.user(other, "ada", **WHO).counts.values()) == {0}
    assert eraser.resume(other) == []
    assert eraser.sweep(other) == 0
    assert eraser.patient(tenant, world.patient, **WHO).counts["images"] == 2
