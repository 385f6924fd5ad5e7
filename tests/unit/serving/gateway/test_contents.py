"""The bytes of images, as uploads, erasures and sweeps have to do with them at once."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import NotFound, Overloaded, StoreError
from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.blobs.signing import Signer
from serving.gateway.retention import Eraser, ErasureReport
from serving.gateway.store import Store, contents, engine
from serving.gateway.store.repositories import audit, cases, erasures, images, parts, patients
from tests.gateway_rows import WHO, World, bystander, dump, image_of


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, nobody is told to come again later."""
    for module in (engine, contents):
        monkeypatch.setattr(module, "_WAIT_S", 300.0)


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

    def delete(self, tenant: str, sha256: str) -> None:
        self._note("delete")
        super().delete(tenant, sha256)

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
    blobs.calls.clear()
    for patient in everybody:
        eraser.patient(tenant, patient, **WHO)
    assert blobs.calls == [("delete", 0)]
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
    eraser.sweep(tenant)
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


def test_what_a_clean_up_took_is_known_for_a_day(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser
) -> None:
    def noted() -> dict[object, object]:
        return {row[1]: row[2] for row in dump(store, tenant)["blobs"]}

    now = dt.datetime.now(dt.UTC)
    store.clock = lambda: now
    one, two, again = (keep(blobs, tenant, data, "image/png") for data in (b"1", b"2", b"3"))

    def taken(sha256: str) -> None:
        with store.write(tenant, "test") as scope:
            images.lock_content(scope, sha256)
            images.let_go(scope, sha256)
        blobs.delete(tenant, sha256)
        with store.write(tenant, "test") as scope:
            images.forget_content(scope, sha256)
            assert images.unreferenced(scope) == []

    taken(one.sha256)
    taken(again.sha256)
    with store.write(tenant, "test") as scope:
        image_of(scope, again)
    now += dt.timedelta(days=1, seconds=1)
    # What is erased in the meantime has nothing to do with it.
    taken(two.sha256)
    assert noted() == {one.sha256: -1, two.sha256: -1, again.sha256: -1}
    assert eraser.sweep(tenant) == 0
    assert noted() == {two.sha256: -1, again.sha256: 1}


class Slow(FolderBlobs):
    """Does ``first`` before the bytes are taken."""

    def __init__(self, folder: Path, first: Callable[[], None]) -> None:
        super().__init__(folder, Signer([b"k" * 32]))
        self.first = first

    def delete(self, tenant: str, sha256: str) -> None:
        self.first()
        super().delete(tenant, sha256)


def test_the_database_is_free_while_the_image_store_is_slow(
    store: Store, tenant: str, world: World, blobs: FolderBlobs
) -> None:
    written: list[str] = []

    def write() -> None:
        with store.write(tenant, "another") as scope:
            written.append(patients.add(scope, name="Eve").id)
            # The row of the very content too.
            images.lock_content(scope, world.sha256)

    assert Eraser(store, Slow(blobs.root, write)).patient(tenant, world.patient, **WHO).finished
    assert len(written) == 2


def test_an_image_that_is_erased_before_its_upload_looks_brings_no_bytes_back(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser
) -> None:
    data = b"erased twice"
    kept = keep(blobs, tenant, data, "image/png")
    with store.write(tenant, "test") as scope:
        before = patients.add(scope, name="Ada").id
        image_of(scope, keep(blobs, tenant, data, "image/png"), patient_id=before)
    eraser.patient(tenant, before, **WHO)
    reports: list[ErasureReport] = []
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
        image_of(scope, kept, patient_id=patient)
        # The transaction is written, and the upload did not look yet.
        scope.afterwards.insert(0, lambda _: reports.append(eraser.patient(tenant, patient, **WHO)))
    assert [(report.finished, report.erased) for report in reports] == [(True, (kept.sha256,))]
    assert list(blobs.listed(tenant)) == []


def test_an_erasure_waits_for_the_upload_that_keeps_its_bytes_again(
    store: Store, tenant: str, tmp_path: Path
) -> None:
    data = b"kept again"
    blobs = Held(tmp_path / "held", Signer([b"k" * 32]))
    eraser = Eraser(store, blobs)
    kept = keep(blobs, tenant, data, "image/png")
    with store.write(tenant, "test") as scope:
        before = patients.add(scope, name="Ada").id
        image_of(scope, kept, patient_id=before)
    eraser.patient(tenant, before, **WHO)
    reports: list[ErasureReport] = []
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
        image_of(scope, kept, patient_id=patient)

        def erase() -> None:
            reports.append(eraser.patient(tenant, patient, **WHO))

        erasing = threading.Thread(target=erase)

        def until_the_row_is_gone() -> None:
            erasing.start()
            while erasing.is_alive() and patient in patient_ids(store, tenant):
                time.sleep(0.01)

        blobs.first = until_the_row_is_gone
    erasing.join()
    assert [report.finished for report in reports] == [True]
    assert list(blobs.listed(tenant)) == []


class Held(FolderBlobs):
    """Does ``first`` before bytes are put, once."""

    first: Callable[[], None] | None = None

    def put(self, tenant: str, data: bytes, media_type: str) -> str:
        first, self.first = self.first, None
        if first is not None:
            first()
        return super().put(tenant, data, media_type)


def patient_ids(store: Store, tenant: str) -> list[str]:
    with store.read(tenant) as scope:
        return [row.id for row in patients.listed(scope)]


def test_an_upload_between_the_note_and_the_end_of_its_bytes_keeps_them(
    store: Store, blobs: FolderBlobs, tenant: str
) -> None:
    data = b"sent meanwhile"
    kept = keep(blobs, tenant, data, "image/png")
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
        image_of(scope, kept, patient_id=patient)
    late: list[threading.Thread] = []

    def upload() -> None:
        with store.write(tenant, "late") as scope:
            image_of(scope, kept)

    def between() -> None:
        if late:
            return
        late.append(threading.Thread(target=upload))
        late[0].start()
        while late[0].is_alive() and not referred(store, tenant, kept.sha256):
            time.sleep(0.01)
        # It would look now, and find them, if it could.
        time.sleep(0.1)

    report = Eraser(store, Slow(blobs.root, between)).patient(tenant, patient, **WHO)
    late[0].join()
    assert report.erased == (kept.sha256,)
    assert blobs.get(tenant, kept.sha256) == data
    # A repetition of what is done finds another's image.
    assert Eraser(store, blobs).sweep(tenant) == 0
    assert blobs.get(tenant, kept.sha256) == data


def referred(store: Store, tenant: str, sha256: str) -> bool:
    with store.read(tenant) as scope:
        return bool(images.known(scope, [sha256]))


#: An erasure that is killed before or after it took bytes; what it is told stands in the arguments.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.blobs.signing import Signer
from serving.gateway.retention import ErasureReport, Eraser
from serving.gateway.store import Store
_, _, url, folder, tenant, patient, where = sys.argv

class Dying(FolderBlobs):
    def delete(self, tenant, sha256):
        if where == "after":
            super().delete(tenant, sha256)
        os.kill(os.getpid(), signal.SIGKILL)

eraser = Eraser(Store(url), Dying(Path(folder), Signer([b"k" * 32])))
if patient:
    eraser.patient(tenant, patient, actor="token:1", reason="asked")
else:
    eraser.sweep(tenant)
"""


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_killed_erasure_is_finished_by_the_next(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser, where: str
) -> None:
    kept = keep(blobs, tenant, b"killed", "image/png")
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
        image_of(scope, kept, patient_id=patient)
    killed(store, blobs, tenant, patient, where)
    with store.read(tenant) as scope:
        (waiting,) = erasures.unfinished(scope)
    assert [report.finished for report in eraser.resume(tenant)] == [True]
    assert list(blobs.listed(tenant)) == []
    with store.read(tenant) as scope:
        assert erasures.get(scope, waiting.id).finished_at is not None
    # Or an upload of it comes first: then the bytes are its own.
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
        image_of(scope, keep(blobs, tenant, b"killed", "image/png"), patient_id=patient)
    killed(store, blobs, tenant, patient, where)
    with store.write(tenant, "test") as scope:
        image_of(scope, kept)
    (report,) = eraser.resume(tenant)
    assert (report.finished, report.erased, report.kept_for_others) == (True, (), (kept.sha256,))
    assert blobs.get(tenant, kept.sha256) == b"killed"


def test_a_killed_sweep_is_finished_by_the_next(
    store: Store, blobs: FolderBlobs, tenant: str, eraser: Eraser
) -> None:
    kept = keep(blobs, tenant, b"killed", "image/png")
    with store.write(tenant, "test") as scope:
        images.lock_content(scope, kept.sha256)
    killed(store, blobs, tenant, "", "before")
    assert blobs.size(tenant, kept.sha256) is not None
    # At once, though the bytes are young.
    assert eraser.sweep(tenant) == 1
    assert list(blobs.listed(tenant)) == []
    assert eraser.sweep(tenant) == 0


def killed(store: Store, blobs: FolderBlobs, tenant: str, patient: str, where: str) -> None:
    root = str(Path(__file__).resolve().parents[4])
    url = store.url.render_as_string(hide_password=False)
    given = [root, url, str(blobs.root), tenant, patient, where]
    ended = subprocess.run([sys.executable, "-c", KILLED, *given], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_nobody_waits_for_a_content_for_ever(
    store: Store,
    blobs: FolderBlobs,
    tenant: str,
    world: World,
    eraser: Eraser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contents, "_WAIT_S", 0.05)
    with contents.alone_with(store, tenant, world.sha256):
        with pytest.raises(Overloaded), contents.alone_with(store, tenant, world.sha256):
            pass
        report = eraser.patient(tenant, world.patient, **WHO)
        assert not report.finished
        # Another content, or another tenant's, is another matter.
        with (
            contents.alone_with(store, tenant, "0" * 64),
            contents.alone_with(store, "another", world.sha256),
        ):
            pass
    assert [report.finished for report in eraser.resume(tenant)] == [True]
    assert not list(Path(blobs.root).parent.glob("*.lock"))
