"""What the export of labels names: whole readings only, of one moment."""

from __future__ import annotations

import io
import json
import zipfile
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data.sources.review_export import moment
from serving.gateway.access.gate import Identity
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.gateway import Gateway
from serving.gateway.loop.reading import Said, record, skip, undo
from serving.gateway.store import Store
from serving.gateway.store.repositories import cases, images, labels, patients, predictions, queue
from serving.gateway.systems.review import entries
from serving.gateway.systems.review import labels as module
from tests.gateway_rows import ORIGIN, image_of

TASK = "dr_grading"
HEADS = {
    "grade": {
        "label": "mild",
        "probabilities": {"mild": 0.6, "severe": 0.4},
        "set": ["mild", "severe"],
        "uncertain": True,
        "confidence": 0.6,
    }
}
MILD, SEVERE = {"grade": Said("mild")}, {"grade": Said("severe")}


class Clinic:
    """A tenant whose photographs are queued, read and exported."""

    def __init__(self, store: Store, blobs: BlobStore, tenant: str) -> None:
        self.store, self.blobs, self.tenant = store, blobs, tenant

    def queue(self, data: bytes = b"1", *, readers: int = 1, **image: Any) -> str:
        kept = keep(self.blobs, self.tenant, data, "image/png")
        with self.store.write(self.tenant, "test") as scope:
            row = image_of(scope, kept, **image)
            said = predictions.add(
                scope, ORIGIN, image_id=row.id, verdict="gradable", answer={"heads": HEADS}
            )
            entry = queue.enter(
                scope, task=TASK, image_id=row.id, prediction_id=said.id,
                reasons=["uncertain"], priority=1, readers_needed=readers,
            )  # fmt: skip
            assert entry is not None
            return entry.id

    def say(self, entry: str, reader: str, said: dict[str, Said]) -> None:
        with self.store.write(self.tenant, reader) as scope:
            record(scope, entry, reader=reader, said=said)

    def sees(self, entry: str, reader: str) -> list[str]:
        who = cast(Identity, SimpleNamespace(tenant=self.tenant, actor=reader, subject=reader))
        with self.store.read(self.tenant, reader) as scope:
            return [one.reader for one in entries._entry(scope, queue.get(scope, entry), who).labels]

    def export(self) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
        """What export.json, labels.jsonl and excluded.txt say."""
        gateway = cast(Gateway, SimpleNamespace(store=self.store, blobs=self.blobs))
        who = cast(Identity, SimpleNamespace(tenant=self.tenant, actor="eve", subject="eve"))
        file, _ = module._export(gateway, who, TASK, True)
        with file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
            lines = [json.loads(line) for line in archive.read("labels.jsonl").splitlines()]
            excluded = archive.read("excluded.txt").decode().split()
            return json.loads(archive.read("export.json")), lines, excluded


@pytest.fixture
def clinic(store: Store, blobs: BlobStore, tenant: str) -> Clinic:
    return Clinic(store, blobs, tenant)


def test_a_half_read_case_that_is_skipped_stays_half_read(clinic: Clinic) -> None:
    entry = clinic.queue(readers=2)
    clinic.say(entry, "eve", MILD)
    with clinic.store.write(clinic.tenant, "bob") as scope:
        assert skip(scope, entry, reader="bob").state == "skipped"
    assert clinic.export()[1] == []
    assert (clinic.sees(entry, "bob"), clinic.sees(entry, "eve")) == ([], ["eve"])
    with clinic.store.write(clinic.tenant, "bob") as scope:
        undo(scope, entry, reader="bob")
    clinic.say(entry, "bob", SEVERE)
    assert clinic.sees(entry, "bob") == ["eve", "bob"]
    assert [line["reader"] for line in clinic.export()[1]] == ["eve", "bob"]


def test_one_of_two_labels_taken_back_over_rest_leaves_it_half_read(clinic: Clinic) -> None:
    entry = clinic.queue(readers=2)
    clinic.say(entry, "eve", MILD)
    clinic.say(entry, "bob", MILD)
    with clinic.store.write(clinic.tenant, "bob") as scope:
        (own,) = labels.listed(scope, reader="bob")
        labels.withdraw(scope, own.id)
        assert queue.get(scope, entry).state == "done"
    assert clinic.export()[1] == []
    assert clinic.sees(entry, "bob") == []


def test_an_export_is_of_one_moment(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    queued = [clinic.queue(bytes([number]), readers=1 + number % 2) for number in range(4)]
    for entry in queued:
        clinic.say(entry, "eve", MILD)
    real = module._lines
    asked: list[int] = []

    def meanwhile(*given: Any) -> list[dict[str, Any]]:
        found = real(*given)
        if not asked:
            # The first is changed, the second one's second reader comes, while the first page is written.
            asked.append(1)
            clinic.say(queued[0], "eve", SEVERE)
            clinic.say(queued[1], "bob", SEVERE)
        return found

    monkeypatch.setattr(module, "_lines", meanwhile)
    assert [(line["reader"], line["value"]) for line in clinic.export()[1]] == [("eve", "mild")] * 2
    later = clinic.export()[1]
    assert sorted((line["reader"], line["value"]) for line in later) == [
        ("bob", "severe"), ("eve", "mild"), ("eve", "mild"), ("eve", "severe"),
    ]  # fmt: skip


def test_a_photograph_without_a_patient_belongs_to_its_case_or_its_owner(clinic: Clinic) -> None:
    with clinic.store.write(clinic.tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
    sent: list[dict[str, Any]] = [
        {"case_key": "c-1", "system": "s0", "owner": "app"},
        {"case_key": "c-1", "system": "s0", "owner": "app"},
        {"case_key": "c-2", "system": "s0", "owner": "app", "patient_id": patient},
        {"system": "s3", "owner": "ada"},
        {"system": "s3", "owner": "ada"},
        {"system": "s3", "owner": "bea"},
        {"system": "s1", "owner": "folder"},
        {"system": "s0", "owner": "app"},
    ]
    for number, image in enumerate(sent):
        entry = clinic.queue(bytes([number]), **image)
        clinic.say(entry, "eve", MILD)
    with clinic.store.write(clinic.tenant, "test") as scope:
        # The last one's case is logged later, by the image's id.
        last = queue.get(scope, entry).image_id
        cases.log(scope, "c-3", {"image_id": last, "user_id": "u-1"}, by="app")
    lines = clinic.export()[1]
    groups = [line["group"] for line in lines]
    assert [line["case_id"] for line in lines] == ["c-1", "c-1", "c-2", None, None, None, None, "c-3"]
    assert groups[:3] == ["case:c-1", "case:c-1", patient]
    assert groups[3] == groups[4] != groups[5]
    assert "ada" not in str(groups)
    assert groups[6:] == [None, "case:c-3"]


def test_it_names_what_was_taken_back(clinic: Clinic) -> None:
    queued = [clinic.queue(bytes([number])) for number in range(4)]
    for entry in queued[:3]:
        clinic.say(entry, "eve", MILD)
    # A mind changed is a label that stands, and of the same photograph another copy's does too.
    clinic.say(queued[0], "eve", SEVERE)
    for entry in queued[1:3]:
        with clinic.store.write(clinic.tenant, "eve") as scope:
            undo(scope, entry, reader="eve")
    copy = keep(clinic.blobs, clinic.tenant, bytes([1]), "image/png")
    with clinic.store.write(clinic.tenant, "test") as scope:
        again = image_of(scope, copy)
        labels.add(scope, image_id=again.id, task=TASK, head="grade", value="mild", reader="bob")
        taken = images.get(scope, queue.get(scope, queued[2]).image_id).sha256
    info, lines, _ = clinic.export()
    assert [(line["reader"], line["value"]) for line in lines] == [("eve", "severe"), ("bob", "mild")]
    (gone,) = info["withdrawn"]
    assert (gone["sha256"], gone["head"]) == (taken, "grade")
    assert moment(gone["at"])
