"""Erasing: it reaches everything, leaves a proof, spares what is others', and goes on after a crash."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.errors import Conflict, NotFound, RetidermError, StoreError, UsageError
from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.blobs.signing import Signer
from serving.gateway.retention import Eraser, LearnedVersion
from serving.gateway.store import Store
from serving.gateway.store.repositories import (
    audit,
    cases,
    erasures,
    idempotency,
    images,
    labels,
    parts,
    patients,
    scans,
)
from tests.gateway_rows import World, dump, fill, image_of, tenant_of

WHO = {"actor": "token:1", "reason": "asked by the patient"}
VERSION = LearnedVersion("skin_lesion", "4", "sha256:" + "d" * 64)


@pytest.fixture
def eraser(store: Store, blobs: FolderBlobs) -> Eraser:
    return Eraser(store, blobs)


@pytest.fixture
def world(store: Store, blobs: FolderBlobs, tenant: str) -> World:
    return fill(store, blobs, tenant)


def bystander(store: Store, blobs: FolderBlobs, tenant: str, data: bytes = b"bystander") -> str:
    """Another patient of the same tenant, with an image, scan, case and label; the patient's id."""
    kept = keep(blobs, tenant, data, "image/png")
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Bob").id
        image = image_of(scope, kept, patient_id=patient, case_key="other-case", owner="bob").id
        scans.add(scope, system="s2", owner="bob", patient_id=patient, image_id=image)
        cases.log(scope, "other-case", {"image_id": image}, by="bob")
        labels.add(scope, image_id=image, task="t", head="h", value="v", reader="eve")
    return patient


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


def test_bytes_that_another_image_has_stay(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    bystander(store, blobs, tenant, data=b"image a")
    report = eraser.patient(tenant, world.patient, **WHO)
    assert report.kept_for_others == (world.sha256,)
    assert report.erased == (world.overlay_sha256,)
    assert blobs.get(tenant, world.sha256) == b"image a"
    with store.read(tenant) as scope:
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


def test_it_goes_on_where_it_was_cut_off(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    real = FolderBlobs.delete

    def second_fails(self: FolderBlobs, tenant: str, sha256: str) -> None:
        if deleted:
            raise StoreError("The image store can't be reached.")
        deleted.append(sha256)
        real(self, tenant, sha256)

    eraser = Eraser(store, blobs)
    with monkeypatch.context() as patch:
        patch.setattr(FolderBlobs, "delete", second_fails)
        report = eraser.patient(tenant, world.patient, **WHO)
    assert not report.finished
    assert len(report.erased) == 1
    # The rows are gone at once, whatever the bytes do.
    with store.read(tenant) as scope, pytest.raises(NotFound):
        patients.get(scope, world.patient)
    (resumed,) = eraser.resume(tenant)
    assert resumed.finished
    assert len(resumed.erased) == 2
    assert list(blobs.listed(tenant)) == []
    assert eraser.resume(tenant) == []


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


def test_what_is_too_old(store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser) -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    store.clock = lambda: now
    world = fill(store, blobs, tenant)
    now += dt.timedelta(days=40)
    bystander(store, blobs, tenant)
    assert eraser.older(tenant, 60) == []
    # Somebody wrote to the case yesterday: what belongs to it stays with it.
    with store.write(tenant, "test") as scope:
        cases.get(scope, world.case).updated_at = now - dt.timedelta(days=1)
    assert eraser.older(tenant, 30) == []
    with store.write(tenant, "test") as scope:
        cases.get(scope, world.case).updated_at = now - dt.timedelta(days=40)
    (report,) = eraser.older(tenant, 30)
    assert report.erased == tuple(sorted([world.sha256, world.overlay_sha256]))
    with store.read(tenant) as scope:
        assert [case.key for case in cases.listed(scope)] == ["other-case"]
        # Nobody asked for it: datasets keep what they have of it.
        assert erasures.excluded(scope) == []
    with pytest.raises(UsageError):
        eraser.older(tenant, 0)


def test_bytes_without_a_row_are_swept_after_a_day(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    fresh, old = (keep(blobs, tenant, data, "image/png") for data in (b"fresh", b"old"))
    for sha256 in (old.sha256, world.sha256):
        path = blobs.root / tenant / sha256[:2] / sha256
        os.utime(path, (path.stat().st_mtime - 90_000,) * 2)
    assert eraser.sweep(tenant) == 1
    assert blobs.size(tenant, old.sha256) is None
    assert blobs.size(tenant, fresh.sha256) == 5
    assert blobs.size(tenant, world.sha256) is not None
    # The upload that took more than a day finds its bytes gone, and keeps them again.
    with store.write(tenant, "test") as scope:
        image_of(scope, old)
    assert blobs.get(tenant, old.sha256) == b"old"
    with store.read(tenant) as scope:
        assert images.unreferenced(scope) == []


def test_a_content_that_a_crash_left_without_image_is_swept(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser
) -> None:
    kept = keep(blobs, tenant, b"left", "image/png")
    with store.write(tenant, "test") as scope:
        images.lock_content(scope, kept.sha256)
    assert eraser.sweep(tenant) == 1
    assert blobs.size(tenant, kept.sha256) is None
    assert eraser.sweep(tenant) == 0


def test_uploads_and_erasures_of_one_content_at_once(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser
) -> None:
    failed: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for n in range(4):
                kept = keep(blobs, tenant, b"everybody's", "image/png")
                with store.write(tenant, f"w{worker}") as scope:
                    patient = patients.add(scope, name=f"{worker}-{n}").id
                    image_of(scope, kept, patient_id=patient)
                if n % 2 == 0:
                    eraser.patient(tenant, patient, **WHO)
                else:
                    assert blobs.get(tenant, kept.sha256) == b"everybody's"
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with store.read(tenant) as scope:
        found = images.with_content(scope, keep(blobs, tenant, b"everybody's", "image/png").sha256)
        assert len(found) == 10
        assert audit.verify(scope) == []


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
                erased.wait(20)
                scans.add(scope, system="s2", owner="late", patient_id=world.patient)
        except RetidermError as error:
            result.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    seen.wait(20)
    eraser.patient(tenant, world.patient, **WHO)
    erased.set()
    thread.join()
    assert len(result) == 1
    assert isinstance(result[0], Conflict | NotFound)


def test_a_row_that_goes_between_two_statements_is_made_again(
    store: Store, blobs: FolderBlobs, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a clean-up had removed the row after it was in the way of the first insert."""
    real = parts.insert_new
    for module in (images, cases):
        calls: list[object] = []

        def late(*args: Any, calls: list[object] = calls, **values: Any) -> bool:
            calls.append(args)
            return False if len(calls) == 1 else real(*args, **values)

        monkeypatch.setattr(module, "insert_new", late)
    kept = keep(blobs, tenant, b"x", "image/png")
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept)
        assert cases.log(scope, "c", {"image_id": image.id}, by="o").image_id == image.id


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


class Watched(FolderBlobs):
    """Says of each call how many connections to the database were in use."""

    store: Store
    calls: list[tuple[str, int]]

    def put(self, tenant: str, data: bytes, media_type: str) -> str:
        self._note("put")
        return super().put(tenant, data, media_type)

    def size(self, tenant: str, sha256: str) -> int | None:
        self._note("size")
        return super().size(tenant, sha256)

    def _note(self, name: str) -> None:
        self.calls.append((name, self.store.engine.pool.checkedout()))  # type: ignore[attr-defined]


def watched(store: Store, folder: Path) -> Watched:
    found = Watched(folder, Signer([b"k" * 32]))
    found.store, found.calls = store, []
    return found


def test_no_transaction_waits_for_the_image_store(store: Store, tenant: str, tmp_path: Path) -> None:
    blobs = watched(store, tmp_path / "watched")
    eraser = Eraser(store, blobs)
    for _ in range(2):
        kept = keep(blobs, tenant, b"sent again", "image/png")
        with store.write(tenant, "test") as scope:
            patient = patients.add(scope, name="Ada").id
            image_of(scope, kept, patient_id=patient)
    # Nothing was removed, so nothing has to be looked for.
    assert blobs.calls == [("put", 0)] * 2
    with store.read(tenant) as scope:
        everybody = [row.id for row in patients.listed(scope)]
    # Kept before a clean-up that takes it, and written after: looked for when the locks are free.
    kept = keep(blobs, tenant, b"sent again", "image/png")
    for patient in everybody:
        eraser.patient(tenant, patient, **WHO)
    assert FolderBlobs.size(blobs, tenant, kept.sha256) is None
    blobs.calls.clear()
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
        image_of(scope, kept, kind="overlay")
    assert blobs.calls[0] == ("size", 0)
    assert ("put", 0) in blobs.calls
    assert not any(used for _, used in blobs.calls)
    assert blobs.get(tenant, kept.sha256) == b"sent again"
    # That day everybody looks, and no clean-up takes it.
    blobs.calls.clear()
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
    assert (blobs.calls, eraser.sweep(tenant)) == ([("size", 0)], 0)
    assert blobs.get(tenant, kept.sha256) == b"sent again"
    # After it the content is one as any other.
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1, seconds=1)
    store.clock = lambda: tomorrow
    with store.write(tenant, "test") as scope:
        other = keep(blobs, tenant, b"another", "image/png").sha256
        images.lock_content(scope, other)
        images.forget_content(scope, other)
    blobs.calls.clear()
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
    assert blobs.calls == []
    eraser.sweep(tenant)
    assert blobs.get(tenant, kept.sha256) == b"sent again"


def test_who_looks_for_bytes_does_not_look_for_others(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser
) -> None:
    """Two uploads kept their bytes before a clean-up; the first with a row is killed before it looks."""
    with store.write(tenant, "test") as scope:
        before = patients.add(scope, name="Ada").id
        image_of(scope, keep(blobs, tenant, b"sent thrice", "image/png"), patient_id=before)
    one, two = (keep(blobs, tenant, b"sent thrice", "image/png") for _ in range(2))
    eraser.patient(tenant, before, **WHO)
    with store.write(tenant, "test") as scope:
        image_of(scope, one)
        scope.afterwards.clear()
    with store.write(tenant, "test") as scope:
        image_of(scope, two)
    assert blobs.get(tenant, two.sha256) == b"sent thrice"


def test_what_a_clean_up_took_is_known_for_a_day(store: Store, blobs: FolderBlobs, tenant: str) -> None:
    def noted() -> set[str]:
        return {row[1] for row in dump(store, tenant)["blobs"]}

    now = dt.datetime.now(dt.UTC)
    store.clock = lambda: now
    one, two = (keep(blobs, tenant, data, "image/png").sha256 for data in (b"1", b"2"))
    for sha256, seen in ((one, {one}), (two, {two})):
        with store.write(tenant, "test") as scope:
            images.lock_content(scope, sha256)
            images.forget_content(scope, sha256)
            assert images.unreferenced(scope) == []
        assert noted() == seen
        now += dt.timedelta(days=1, seconds=1)


def test_of_several_gateways_one_erases_what_is_old(
    store: Store, blobs: FolderBlobs, tenant: str, world: World, eraser: Eraser
) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=40)
    with store.write(tenant, "test") as scope:
        cases.get(scope, world.case).updated_at = scope.now - dt.timedelta(days=40)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from serving.gateway.store import Store\n"
        "with Store(sys.argv[2]).alone('older-' + sys.argv[3]) as alone:\n"
        "    print(alone, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    url = store.url.render_as_string(hide_password=False)
    root = str(Path(__file__).resolve().parents[4])
    command = [sys.executable, "-c", code, root, url, tenant]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    store.clock = lambda: later
    assert eraser.older(tenant, 30) == []
    # Another tenant's is another matter.
    with store.alone(f"older-{uuid.uuid4()}") as alone:
        assert alone
    # A process that dies holds nothing.
    other.kill()
    other.communicate()
    while not (reports := eraser.older(tenant, 30)):
        time.sleep(0.05)
    assert [report.counts["images"] for report in reports] == [2]
    with store.alone(f"older-{tenant}") as first, store.alone(f"older-{tenant}") as second:
        assert (first, second) == (True, False)
    with store.alone(f"older-{tenant}") as again:
        assert again
