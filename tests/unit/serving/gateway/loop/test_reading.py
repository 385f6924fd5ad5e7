"""Readers, second readers, adjudicators, and taking back."""

from __future__ import annotations

import datetime as dt
import threading
import time

import pytest
from sqlalchemy import text

from data.errors import Conflict, NotFound, RequestError
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.loop.agreement import agreements
from serving.gateway.loop.reading import STUDIO, Said, bring_in, labels_of, record, skip, undo, verdict_of
from serving.gateway.retention import Eraser
from serving.gateway.store import Store
from serving.gateway.store.repositories import audit, erasures, patients, predictions, queue
from serving.gateway.store.tables import QueueEntry
from tests.gateway_rows import ORIGIN, image_of

HEADS = {
    "skin": {"label": "dry", "probabilities": {"dry": 0.6, "oily": 0.4}},
    "hair": {"label": "wavy", "probabilities": {"wavy": 0.9, "curly": 0.1}},
}
DRY = {"skin": Said("dry"), "hair": Said("wavy")}
OILY = {"skin": Said("oily"), "hair": Said("wavy")}


def entry_of(store: Store, blobs: BlobStore, tenant: str, *, readers: int = 1, data: bytes = b"1") -> str:
    kept = keep(blobs, tenant, data, "image/png")
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada")
        image = image_of(scope, kept, patient_id=patient.id)
        said = predictions.add(
            scope, ORIGIN, image_id=image.id, verdict="gradable", answer={"heads": HEADS}, uncertain=True
        )
        entry = queue.enter(
            scope, task="dr_grading", image_id=image.id, prediction_id=said.id,
            reasons=["uncertain"], priority=1, readers_needed=readers,
        )  # fmt: skip
        return entry.id


def say(store: Store, tenant: str, entry: str, reader: str, said: dict[str, Said]) -> QueueEntry:
    with store.write(tenant, f"token:{reader}") as scope:
        return record(scope, entry, reader=reader, said=said)


def test_one_reader(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant)
    assert say(store, tenant, entry, "eve", DRY).state == "done"
    # The same reader changes their mind; what was said before stays, taken back.
    assert say(store, tenant, entry, "eve", OILY).state == "done"
    with store.read(tenant) as scope:
        standing = labels_of(scope, queue.get(scope, entry))
        assert {(row.head, row.value) for row in standing} == {("skin", "oily"), ("hair", "wavy")}
    with pytest.raises(Conflict, match="labelled by eve at 20"):
        say(store, tenant, entry, "bob", DRY)
    with store.write(tenant, "token:eve") as scope:
        assert undo(scope, entry, reader="eve").state == "waiting"
        with pytest.raises(Conflict, match="nothing of yours"):
            undo(scope, entry, reader="eve")
    assert say(store, tenant, entry, "bob", DRY).state == "done"
    with store.read(tenant) as scope:
        assert audit.verify(scope) == []


def test_two_readers_who_agree(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant, readers=2)
    assert say(store, tenant, entry, "eve", DRY).state == "waiting"
    assert say(store, tenant, entry, "bob", DRY).state == "done"
    with pytest.raises(Conflict):
        say(store, tenant, entry, "kim", OILY)


def test_two_readers_who_do_not_and_a_third_who_decides(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant, readers=2)
    say(store, tenant, entry, "eve", DRY)
    assert say(store, tenant, entry, "bob", OILY).state == "adjudicate"
    # One of the two gives in: that is agreement, not adjudication.
    assert say(store, tenant, entry, "bob", DRY).state == "done"
    assert say(store, tenant, entry, "bob", OILY).state == "adjudicate"
    assert say(store, tenant, entry, "kim", OILY).state == "done"
    with store.read(tenant) as scope:
        standing = labels_of(scope, queue.get(scope, entry))
        assert {row.reader for row in verdict_of(standing)} == {"kim"}
        assert {(found.head, found.equal, found.pairs) for found in agreements([standing])} == {
            ("hair", 1, 1),
            ("skin", 0, 1),
        }
    with store.write(tenant, "token:kim") as scope:
        assert undo(scope, entry, reader="kim").state == "adjudicate"


def test_what_can_not_be_graded_is_an_answer_too(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant, readers=2)
    dark = {"skin": Said(cannot_grade="too dark"), "hair": Said(cannot_grade="out of frame")}
    say(store, tenant, entry, "eve", dark)
    assert say(store, tenant, entry, "bob", dark).state == "done"


def test_skipping(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant)
    with store.write(tenant, "token:eve") as scope:
        assert skip(scope, entry, reader="eve").state == "skipped"
        assert undo(scope, entry, reader="eve").state == "waiting"
        skip(scope, entry, reader="eve")
    assert say(store, tenant, entry, "bob", DRY).state == "done"
    with store.write(tenant, "token:eve") as scope:
        assert skip(scope, entry, reader="eve").state == "done"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"skin": Said("dry")}, "heads are"),
        ({**DRY, "nose": Said("dry")}, "heads are"),
        ({}, "no head"),
        ({"skin": Said("purple"), "hair": Said("wavy")}, "no class 'purple'"),
        ({"skin": Said(), "hair": Said("wavy")}, "either a class"),
        ({"skin": Said("dry", "dark"), "hair": Said("wavy")}, "either a class"),
        ({"skin": Said(cannot_grade="  "), "hair": Said("wavy")}, "1 to 2000"),
    ],
)
def test_labels_that_are_none(
    store: Store, blobs: BlobStore, tenant: str, said: dict[str, Said], words: str
) -> None:
    entry = entry_of(store, blobs, tenant)
    with pytest.raises(RequestError, match=words):
        say(store, tenant, entry, "eve", said)
    with store.read(tenant) as scope:
        assert labels_of(scope, queue.get(scope, entry)) == []


def test_a_label_on_an_erased_patient(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant)
    with store.read(tenant) as scope:
        patient = patients.listed(scope)[0].id
    Eraser(store, blobs).patient(tenant, patient, actor="test", reason="asked")
    with pytest.raises(NotFound, match="Queue entry not found"):
        say(store, tenant, entry, "eve", DRY)


def test_an_erasure_and_a_label_at_once_wait_for_each_other_in_one_order(
    store: Store, blobs: BlobStore, tenant: str
) -> None:
    entry = entry_of(store, blobs, tenant)
    said: list[object] = []

    def read() -> None:
        try:
            said.append(say(store, tenant, entry, "eve", DRY))
        except Exception as error:
            said.append(error)

    reader = threading.Thread(target=read)
    with store.write(tenant, "admin") as scope:
        found = erasures.reach(scope, patient_id=patients.listed(scope)[0].id)
        reader.start()
        until = time.monotonic() + 120
        # On PostgreSQL: until the reader waits for what is locked here.
        while not store.is_sqlite and time.monotonic() < until:
            if scope.session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                break
            time.sleep(0.01)
        erasures.remove(scope, found, name="patient:x", reason="asked")
    reader.join(240)
    (error,) = said
    assert isinstance(error, NotFound)


NOON = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def bring(
    store: Store, tenant: str, entry: str, reader: str, said: dict[str, Said], at: dt.datetime = NOON
) -> str | None:
    with store.write(tenant, "token:eve") as scope:
        return bring_in(scope, entry, reader=reader, said=said, at=at)


def told(store: Store, tenant: str, entry: str) -> tuple[str, set[tuple[str, str, str | None]]]:
    """The entry's state, and who says what of the skin, from where."""
    with store.read(tenant) as scope:
        row = queue.get(scope, entry)
        standing = [one for one in labels_of(scope, row) if one.head == "skin"]
        return row.state, {(one.reader, one.source, one.value) for one in standing}


def test_one_person_here_and_in_label_studio_is_one_reader(
    store: Store, blobs: BlobStore, tenant: str
) -> None:
    here = entry_of(store, blobs, tenant, readers=2)
    say(store, tenant, here, "Eve@clinic", DRY)
    assert bring(store, tenant, here, "label_studio:eve@clinic", OILY) == "Eve@clinic has labelled it here"
    assert told(store, tenant, here) == ("waiting", {("Eve@clinic", "review", "dry")})
    there = entry_of(store, blobs, tenant, readers=2, data=b"2")
    assert bring(store, tenant, there, "label_studio:eve@clinic", OILY) is None
    assert say(store, tenant, there, "Eve@clinic", DRY).state == "waiting"
    assert told(store, tenant, there) == ("waiting", {("Eve@clinic", "review", "dry")})
    assert bring(store, tenant, there, "label_studio:bob@clinic", DRY) is None
    assert told(store, tenant, there)[0] == "done"


def test_nobody_decides_in_label_studio(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant, readers=2)
    bring(store, tenant, entry, "label_studio:1", DRY)
    bring(store, tenant, entry, "label_studio:2", OILY)
    with pytest.raises(Conflict, match="label_studio:1 and label_studio:2 disagree"):
        bring(store, tenant, entry, "label_studio:3", OILY)
    # Either of the two may change their mind there; who decides does so here.
    assert bring(store, tenant, entry, "label_studio:2", OILY, NOON + HOUR) is None
    assert say(store, tenant, entry, "kim", OILY).state == "done"
    assert bring(store, tenant, entry, "label_studio:kim", DRY, NOON + HOUR) == "kim has labelled it here"
    assert ("kim", "adjudication", "oily") in told(store, tenant, entry)[1]


def test_a_label_from_label_studio_has_its_own_date(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant)
    # Once more changes nothing; an older export does not take a newer one's place.
    for _ in range(2):
        assert bring(store, tenant, entry, "label_studio:1", DRY) is None
    assert "newer" in (bring(store, tenant, entry, "label_studio:1", OILY, NOON - HOUR) or "")
    assert bring(store, tenant, entry, "label_studio:1", OILY, NOON + HOUR) is None
    assert told(store, tenant, entry) == ("done", {("label_studio:1", STUDIO, "oily")})
    with store.read(tenant) as scope:
        assert {row.created_at for row in labels_of(scope, queue.get(scope, entry))} == {NOON + HOUR}
    # Nobody has said anything in the future.
    bring(store, tenant, entry, "label_studio:1", DRY, dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    with store.read(tenant) as scope:
        assert all(row.created_at <= scope.now for row in labels_of(scope, queue.get(scope, entry)))


def test_more_doubts_about_an_image_are_one_entry(store: Store, blobs: BlobStore, tenant: str) -> None:
    entry = entry_of(store, blobs, tenant)
    with store.write(tenant, "test") as scope:
        first = queue.get(scope, entry)
        again = queue.enter(
            scope, task="dr_grading", image_id=first.image_id, prediction_id=first.prediction_id,
            reasons=["rejected", "uncertain"], priority=4,
        )  # fmt: skip
        assert (again.id, again.reasons, again.priority) == (entry, ["uncertain", "rejected"], 4)
        assert queue.counts(scope) == {"dr_grading": {"waiting": 1}}
