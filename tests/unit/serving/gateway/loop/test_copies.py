"""The same photograph sent again: one entry, one reading, unless somebody rejects what was read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from serving.gateway.blobs import BlobStore, keep
from serving.gateway.loop.reading import Said, doubt, record, skip, undo
from serving.gateway.retention import Eraser
from serving.gateway.store import Store
from serving.gateway.store.repositories import cases, labels, patients, predictions, queue
from serving.gateway.store.tables import QueueEntry
from tests.gateway_rows import ORIGIN, image_of

HEADS = {"grade": {"label": "mild", "probabilities": {"mild": 0.5, "severe": 0.5}}}
MILD, SEVERE = {"grade": Said("mild")}, {"grade": Said("severe")}


class Sender:
    """Sends one photograph again and again."""

    def __init__(self, store: Store, blobs: BlobStore, tenant: str) -> None:
        self.store, self.tenant = store, tenant
        self.kept = keep(blobs, tenant, b"one photograph", "image/png")
        self.patients: list[str] = []

    def send(self, *reasons: str, task: str = "dr_grading", wait: Barrier | None = None) -> str | None:
        with self.store.write(self.tenant, "test") as scope:
            patient = patients.add(scope, name="Ada")
            image = image_of(scope, self.kept, patient_id=patient.id)
            said = predictions.add(
                scope, ORIGIN, image_id=image.id, verdict="gradable", answer={"heads": HEADS}
            )
            self.patients.append(patient.id)
        if wait is not None:
            wait.wait()
        with self.store.write(self.tenant, "test") as scope:
            entry = queue.enter(
                scope, task=task, image_id=image.id, prediction_id=said.id, reasons=reasons, priority=1.0
            )
            if entry is not None and "rejected" in reasons:
                doubt(scope, entry)
            return entry.id if entry is not None else None

    def say(self, entry: str | None, reader: str, said: dict[str, Said]) -> str:
        assert entry is not None
        with self.store.write(self.tenant, "test") as scope:
            return record(scope, entry, reader=reader, said=said).state

    def all(self) -> list[QueueEntry]:
        with self.store.read(self.tenant) as scope:
            rows = queue.listed(scope, state=None)
            scope.session.expunge_all()
        return rows


@pytest.fixture
def sender(store: Store, blobs: BlobStore, tenant: str) -> Sender:
    return Sender(store, blobs, tenant)


def test_one_entry_for_a_task_however_often_it_is_sent(sender: Sender) -> None:
    first = sender.send("uncertain")
    assert sender.send("audit", "uncertain") == first
    other = sender.send("uncertain", task="acne")
    assert other != first
    assert [(row.id, row.reasons) for row in sender.all()] == [
        (first, ["uncertain", "audit"]), (other, ["uncertain"]),
    ]  # fmt: skip


def test_many_at_once_are_one_entry(sender: Sender) -> None:
    barrier = Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        sent = [pool.submit(sender.send, reason, wait=barrier) for reason in ("uncertain", "unusual") * 3]
        found = {one.result() for one in sent}
    (entry,) = sender.all()
    assert found == {entry.id}
    assert sorted(entry.reasons) == ["uncertain", "unusual"]


def test_what_a_reader_has_labelled_does_not_come_again(sender: Sender) -> None:
    entry = sender.send("uncertain")
    sender.say(entry, "eve", MILD)
    assert sender.send("unusual", "disagreement", "audit") == entry
    assert [(row.state, row.readers_needed) for row in sender.all()] == [("done", 1)]


def test_nor_does_what_was_labelled_without_ever_waiting(sender: Sender) -> None:
    with sender.store.write(sender.tenant, "test") as scope:
        image = image_of(scope, sender.kept)
        label = labels.add(
            scope, image_id=image.id, task="dr_grading", head="grade", value="mild", reader="eve"
        )
    assert sender.send("uncertain", "audit") is None
    assert sender.all() == []
    # For another task nobody has said anything, and a label that was taken back is none.
    assert sender.send("uncertain", task="acne") is not None
    with sender.store.write(sender.tenant, "test") as scope:
        labels.withdraw(scope, label.id)
    assert sender.send("uncertain") is not None


def test_a_rejection_after_the_label_asks_one_further_reader(sender: Sender) -> None:
    entry = sender.send("uncertain")
    sender.say(entry, "eve", MILD)
    assert sender.send("rejected") == entry
    (row,) = sender.all()
    assert (row.state, row.readers_needed, row.reasons) == ("waiting", 2, ["uncertain", "rejected"])
    # As the second of two: where they disagree, a third decides, and that stands.
    assert sender.say(entry, "bob", SEVERE) == "adjudicate"
    assert sender.say(entry, "kim", SEVERE) == "done"
    sender.send("rejected")
    assert [row.state for row in sender.all()] == ["done"]


def test_rejections_come_to_an_end(sender: Sender) -> None:
    entry = sender.send("uncertain")
    for reader in ("eve", "bob", "kim"):
        assert sender.say(entry, reader, MILD) == "done"
        sender.send("rejected")
    assert [(row.state, row.readers_needed) for row in sender.all()] == [("done", 3)]
    with sender.store.write(sender.tenant, "test") as scope:
        assert entry is not None
        assert undo(scope, entry, reader="kim").state == "waiting"


def test_an_erasure_takes_one_copy_with_its_entry_and_another_copy_may_wait(
    sender: Sender, blobs: BlobStore
) -> None:
    entry = sender.send("uncertain")
    sender.send("uncertain")
    sender.say(entry, "eve", MILD)
    Eraser(sender.store, blobs).patient(sender.tenant, sender.patients[1], actor="test", reason="asked")
    # What was said of the first patient's photograph is not the second one's to take along.
    assert [row.state for row in sender.all()] == ["done"]
    Eraser(sender.store, blobs).patient(sender.tenant, sender.patients[0], actor="test", reason="asked")
    assert sender.all() == []
    sender.kept = keep(blobs, sender.tenant, b"one photograph", "image/png")
    sender.send("uncertain")
    assert [row.state for row in sender.all()] == ["waiting"]


def test_where_the_first_copy_is_erased_another_one_waits_in_its_place(
    sender: Sender, blobs: BlobStore
) -> None:
    entry = sender.send("uncertain")
    sender.send("rejected")
    sender.say(entry, "eve", MILD)
    Eraser(sender.store, blobs).patient(sender.tenant, sender.patients[0], actor="test", reason="asked")
    (row,) = sender.all()
    assert (row.state, row.reasons) == ("waiting", ["uncertain", "rejected"])
    with sender.store.read(sender.tenant) as scope:
        assert labels.listed(scope, image_id=row.image_id) == []
        assert predictions.get(scope, row.prediction_id).image_id == row.image_id
    assert sender.say(row.id, "bob", SEVERE) == "done"


def test_what_was_put_aside_waits_again_when_its_user_rejects_it(sender: Sender) -> None:
    entry = sender.send("uncertain")
    assert entry is not None
    with sender.store.write(sender.tenant, "test") as scope:
        skip(scope, entry, reader="eve")
    sender.send("unusual")
    assert [row.state for row in sender.all()] == ["skipped"]
    sender.send("rejected")
    assert [row.state for row in sender.all()] == ["waiting"]


def test_a_copy_that_is_nobodys_is_called_by_the_case_of_a_later_one(
    store: Store, blobs: BlobStore, tenant: str
) -> None:
    kept = keep(blobs, tenant, b"one photograph", "image/png")
    found = []
    for key in (None, "first", "second"):
        with store.write(tenant, "test") as scope:
            image = image_of(scope, kept, case_key=key)
            said = predictions.add(
                scope, ORIGIN, image_id=image.id, verdict="gradable", answer={"heads": HEADS}
            )
            case = cases.log(scope, key, {"image_id": image.id}, by="ada") if key else None
            entry = queue.enter(
                scope, task="dr_grading", image_id=image.id, prediction_id=said.id, reasons=["uncertain"],
                priority=1.0, case_id=case.id if case else None,
            )  # fmt: skip
            assert entry is not None
            found.append(entry.case_id and cases.by_id(scope, entry.case_id).key)
    # The next one's case is another one's: erased, it would take what was said of the first along.
    assert found == [None, "first", "first"]
