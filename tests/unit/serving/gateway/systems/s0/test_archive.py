"""The zip of an export: what is in it, twice the same, without images that are gone, and never a formula."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import zipfile
from typing import Any

import pytest

from data.errors import RequestError
from serving.gateway.access import Role
from serving.gateway.access.gate import Identity
from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.store import Store
from serving.gateway.store.repositories import case_files, cases, images, labels
from serving.gateway.systems.s0.archive import COLUMNS, Archive, Filters, cell
from serving.gateway.systems.s0.export import moment
from tests.gateway_rows import World, fill, image_of


def who(tenant: str) -> Identity:
    return Identity(tenant, Role.REVIEWER, "eve", "test")


def exported(store: Store, blobs: FolderBlobs, tenant: str, filters: Filters | None = None) -> bytes:
    file = io.BytesIO()
    Archive(blobs, file).fill(store, who(tenant), filters or Filters())
    return file.getvalue()


def read(data: bytes) -> tuple[list[dict[str, str]], list[dict[str, Any]], zipfile.ZipFile]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
    return rows, [json.loads(line) for line in archive.read("cases.jsonl").splitlines()], archive


@pytest.fixture
def world(store: Store, blobs: FolderBlobs, tenant: str) -> World:
    return fill(store, blobs, tenant)


def test_everything_of_a_case_is_in_it(store: Store, blobs: FolderBlobs, world: World) -> None:
    rows, (line,), archive = read(exported(store, blobs, world.tenant))
    assert archive.namelist() == [f"images/{world.sha256}.png", "labels.csv", "cases.jsonl"]
    assert archive.read(f"images/{world.sha256}.png") == b"image a"
    assert line["case_id"] == world.case
    assert line["rejected"] is True
    assert [entry["by"] for entry in line["entries"]] == ["ada"]
    assert line["rejections"][0]["reason"] == "wrong"
    assert line["labels"][0]["value"] == "nv"
    assert line["predictions"][0]["prediction_id"] == world.prediction
    assert line["patient_id"] == world.patient
    assert set(rows[0]) == set(COLUMNS)
    assert [row["label"] for row in rows] == ["nv"]
    assert rows[0]["image_name"] == f"{world.sha256}.png"


def test_the_same_cases_give_the_same_bytes(store: Store, blobs: FolderBlobs, world: World) -> None:
    assert exported(store, blobs, world.tenant) == exported(store, blobs, world.tenant)


def test_nothing_of_another_tenant(store: Store, blobs: FolderBlobs, world: World, other: str) -> None:
    fill(store, blobs, other, "b")
    rows, lines, archive = read(exported(store, blobs, world.tenant))
    assert len(rows) == len(lines) == 1
    assert f"images/{world.sha256}.png" in archive.namelist()
    assert len(archive.namelist()) == 3


def test_an_image_that_is_gone_or_damaged_is_left_out(store: Store, blobs: FolderBlobs, world: World) -> None:
    path = next(blobs.root.glob(f"*/*/{world.sha256}"))
    for harm in (lambda: path.write_bytes(b"other"), path.unlink):
        harm()
        rows, (line,), archive = read(exported(store, blobs, world.tenant))
        assert archive.namelist() == ["labels.csv", "cases.jsonl"]
        assert rows == []
        assert line["images"][0]["file"] is None
        assert line["images"][0]["sha256"] == world.sha256


def test_a_withdrawn_label_is_not_in_it(store: Store, blobs: FolderBlobs, world: World) -> None:
    with store.write(world.tenant, "test") as scope:
        labels.withdraw(scope, world.label)
    rows, (line,), _ = read(exported(store, blobs, world.tenant))
    assert line["labels"] == []
    assert [row["label"] for row in rows] == [""]


def test_several_readers_have_a_line_each(store: Store, blobs: FolderBlobs, world: World) -> None:
    with store.write(world.tenant, "test") as scope:
        said = {"image_id": world.image, "task": "skin_lesion", "head": "diagnosis"}
        labels.add(scope, **said, value="mel", reader="bob")
        labels.add(scope, **said, cannot_grade="blurred", reader="joe")
    rows, _, _ = read(exported(store, blobs, world.tenant))
    assert [(row["reader"], row["label"], row["cannot_grade"]) for row in rows] == [
        ("eve", "nv", ""),
        ("bob", "mel", ""),
        ("joe", "", "blurred"),
    ]


def test_many_pages_and_one_content_once(
    store: Store, blobs: FolderBlobs, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.systems.s0.archive._PAGE", 3)
    kept = keep(blobs, tenant, b"one image", "image/png")
    with store.write(tenant, "test") as scope:
        for number in range(10):
            image = image_of(scope, kept)
            cases.log(scope, f"c{number}", {"case_id": f"c{number}", "image_id": image.id}, by="ada")
    rows, lines, archive = read(exported(store, blobs, tenant))
    assert [line["case_id"] for line in lines] == [f"c{number}" for number in range(10)]
    assert len(rows) == 10
    assert len(archive.namelist()) == 3


def test_the_filters(store: Store, blobs: FolderBlobs, tenant: str) -> None:
    with store.write(tenant, "test") as scope:
        cases.log(scope, "a", {"status": "success"}, by="x", task="acne")
        cases.log(scope, "b", {"status": "uncertain"}, by="x", task="skin_lesion")
        cases.log(scope, "c", {"status": "success"}, by="x")
        cases.reject(scope, "c", {"status": "success"}, by="x")
        now = scope.now

    def found(**which: Any) -> str:
        lines = read(exported(store, blobs, tenant, Filters(**which)))[1]
        return "".join(line["case_id"] for line in lines)

    assert found() == "abc"
    assert found(status="success") == "ac"
    assert found(status="rejected") == "c"
    assert found(task="skin_lesion") == "b"
    assert found(status="success", task="acne") == "a"
    assert found(since=now) == "abc"
    assert found(since=now + dt.timedelta(seconds=1)) == ""


def test_images_sent_under_a_cases_id_belong_to_it(store: Store, blobs: FolderBlobs, tenant: str) -> None:
    kept = [keep(blobs, tenant, f"image {number}".encode(), "image/png") for number in range(3)]
    with store.write(tenant, "test") as scope:
        first = image_of(scope, kept[0], case_key="k")
        # Its overlay is ours, and not a photograph to label.
        image_of(scope, kept[1], case_key="k", kind="overlay", derived_from=first.id)
        case = cases.log(scope, "k", {"case_id": "k"}, by="ada")
        assert case.image_id == first.id
        named = image_of(scope, kept[2])
        cases.log(scope, "k", {"case_id": "k", "image_id": named.id.upper()}, by="ada")
        assert case.image_id == named.id
        (told,) = case_files.gather(scope, [case])
        assert {image.id for image in told.images} == {first.id, named.id}
        # Said again without an image, it keeps the one that it has.
        cases.log(scope, "k", {"case_id": "k"}, by="ada")
        assert case.image_id == named.id
        assert images.newest_of_case(scope, "nobody's") is None


def test_a_doubtful_case_is_begun_once_and_never_over_an_apps_word(
    store: Store, blobs: FolderBlobs, tenant: str
) -> None:
    kept = keep(blobs, tenant, b"image", "image/png")
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept, case_key="k")
        cases.begin(scope, "k", {"status": "uncertain"}, task="acne", image_id=image.id)
        cases.begin(scope, "k", {"status": "uncertain"}, task="skin_lesion", image_id=image.id)
        assert cases.get(scope, "k").task == "acne"
        assert cases.entries(scope, "k") == []
        cases.log(scope, "k", {"status": "success"}, by="ada")
        cases.begin(scope, "k", {"status": "uncertain"}, task="acne", image_id=image.id)
    with store.read(tenant) as scope:
        case = cases.get(scope, "k")
        assert (case.status, case.task, case.image_id) == ("success", "acne", image.id)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", " =1", "\t=1"])
def test_a_spreadsheet_sees_no_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


def test_other_texts_stay() -> None:
    assert [cell(text) for text in (None, "", "nv", "a=b", "1-2")] == ["", "", "nv", "a=b", "1-2"]


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-11-01", 0),
        ("2026-11-01T08:30:00", 8),
        ("2026-11-01T08:30:00Z", 8),
        ("2026-11-01T08:30:00+01:00", 7),
        ("2026-11-01T08:30:00 01:00", 7),
        ("2026-11-01 08:30", 8),
    ],
)
def test_a_moment(text: str, hour: int) -> None:
    found = moment(text)
    assert found.tzinfo is dt.UTC
    assert found.hour == hour


@pytest.mark.parametrize("text", ["", "x", "2026-02-30"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(RequestError):
        moment(text)


def test_moments_at_the_calendars_ends(store: Store, blobs: FolderBlobs, world: World) -> None:
    first, last = moment("0001-01-01T00:00:00+14:00"), moment("9999-12-31T23:59:59-14:00")
    assert len(read(exported(store, blobs, world.tenant, Filters(since=first)))[1]) == 1
    assert read(exported(store, blobs, world.tenant, Filters(since=last)))[1] == []
