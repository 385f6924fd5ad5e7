"""Labels out and in by the page's own buttons: the dataset's export, and Label Studio's files."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Meet, Visit
from tests.browser.world import Clinic, World


@pytest.fixture
def clinic(served: World, request: pytest.FixtureRequest) -> Clinic:
    """A tenant of this test's own, with three lesions that wait."""
    made = served.clinic(re.sub(r"\W", "-", request.node.name)[:60])
    made.lesions(3, size=256)
    return made


def downloaded(visit: Visit, button: str) -> tuple[str, bytes]:
    """A file's name and content, by keyboard alone."""
    visit.page.get_by_role("button", name=button).focus()
    with visit.page.expect_download() as waiting:
        visit.press("Enter")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def annotated(task: dict[str, Any], name: str, choice: str) -> dict[str, Any]:
    """What Label Studio makes of a task when somebody has chosen."""
    result = {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
    said = {
        "completed_by": {"id": 3, "email": "eve@example.org"},
        "was_cancelled": False,
        "created_at": "2026-11-20T12:00:00Z",
        "result": [result],
    }
    return {**task, "annotations": [said]}


def give(visit: Visit, text: str) -> None:
    """Choose a file and import it."""
    visit.page.locator("#exchange-file").set_input_files(
        {"name": "project.json", "mimeType": "application/json", "buffer": text.encode()}
    )
    visit.page.get_by_role("button", name="Import", exact=True).click()


def test_labels_are_exported_and_label_studios_imported(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    opens = page.get_by_role("button", name="Export or import")
    opens.focus()
    visit.press("Enter")
    name, data = downloaded(visit, "Tasks (JSON)")
    tasks = json.loads(data)
    assert (name, len(tasks)) == ("label-studio-skin_lesion.json", 3)
    assert all(task["data"]["image"].startswith("data:image/jpeg;base64,") for task in tasks)
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("3 tasks are in")
    name, data = downloaded(visit, "Interface (XML)")
    assert (name, b'name="diagnosis"' in data) == ("label-studio-skin_lesion.xml", True)
    assert b'value="mel" hint="Melanoma"' in data

    # Nothing of what can't be taken is taken, and the page says why.
    alert = page.get_by_role("dialog").get_by_role("alert")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(alert).to_contain_text("Choose a file first")
    give(visit, "case,label\n1,nv\n")
    expect(alert).to_contain_text("The annotations are not JSON")
    unknown = {**tasks[0], "data": {**tasks[0]["data"], "case": "00000000-0000-4000-8000-000000000000"}}
    give(visit, json.dumps([annotated(tasks[1], "diagnosis", "nv"), annotated(unknown, "diagnosis", "nv")]))
    expect(alert).to_contain_text("1 of unknown cases: 00000000-0000-4000-8000-000000000000")
    assert clinic.labels() == []

    skipped = {**annotated(tasks[2], "diagnosis", "nv")}
    skipped["annotations"][0]["was_cancelled"] = True
    # More than a body may have, were the photographs sent back as they came.
    large = {**tasks[0], "data": {**tasks[0]["data"], "image": f"data:image/jpeg;base64,{'A' * 30_000_000}"}}
    given = [annotated(large, "diagnosis", "mel"), annotated(tasks[1], "cannot_grade", "blurred"), skipped]
    give(visit, json.dumps(given))
    told = page.get_by_role("dialog").get_by_role("status")
    expect(told).to_contain_text("2 readings were imported. Without a label:")
    expect(told).to_contain_text("skipped by label_studio:eve@example.org")
    said = sorted((label.value or "", label.cannot_grade, label.reader) for label in clinic.labels())
    assert said == [
        ("", "blurred", "label_studio:eve@example.org"),
        ("mel", None, "label_studio:eve@example.org"),
    ]

    name, data = downloaded(visit, "Labels (zip)")
    assert name == "labels-skin_lesion.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len([one for one in archive.namelist() if one.startswith("images/")]) == 2
    page.get_by_label("With the photographs").uncheck()
    _, data = downloaded(visit, "Labels (zip)")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["excluded.txt", "export.json", "labels.jsonl"]
        assert len(archive.read("labels.jsonl").splitlines()) == 2

    # Behind the dialog the queue shows what came in.
    visit.press("Escape")
    expect(page.locator(".done")).to_contain_text("2 of 3 read")
    expect(page.locator(".list a")).to_have_count(1)


def test_a_batch_alone_and_one_of_which_nothing_waits(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    page.get_by_role("button", name="Draw a batch").click()
    page.locator("#size").fill("2")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator(".list a")).to_have_count(2)
    page.get_by_role("button", name="Export or import").click()
    expect(page.get_by_role("dialog")).to_contain_text("What waits in the batch that is chosen")
    _, data = downloaded(visit, "Tasks (JSON)")
    tasks = json.loads(data)
    assert len(tasks) == 2
    give(visit, json.dumps([annotated(task, "diagnosis", "nv") for task in tasks]))
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("2 readings were imported.")
    page.get_by_role("button", name="Tasks (JSON)").click()
    alert = page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_contain_text("waits")


@pytest.mark.parametrize("status", [503, 507])
def test_an_export_that_can_not_be_made_is_said_on_the_page(clinic: Clinic, meet: Meet, status: int) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    words = {"code": "x", "message": "The export can't be made now.", "hint": "TMPDIR needs room."}
    page.route(
        "**/review/api/labels/export*", lambda route: route.fulfill(status=status, json={"error": words})
    )
    page.get_by_role("button", name="Export or import").click()
    page.get_by_role("button", name="Labels (zip)").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_have_text("The export can't be made now. TMPDIR needs room.")
    expect(dialog.get_by_role("status")).to_have_count(0)
    # It can be asked for again, as soon as there is room.
    page.unroute("**/review/api/labels/export*")
    name, _ = downloaded(visit, "Labels (zip)")
    assert name == "labels-skin_lesion.zip"
    expect(dialog.get_by_role("alert")).to_have_count(0)


def test_an_export_that_is_too_large_for_the_page_is_the_browsers(clinic: Clinic, meet: Meet) -> None:
    page = meet(clinic.reader()).page
    take = """async (most) => {
      const { file } = await import("/review/static/api.js");
      const found = await file("/review/api/labels/export?task=skin_lesion", most);
      return found === null ? null : found.size;
    }"""
    assert page.evaluate(take, 1) is None
    assert page.evaluate(take, 2**20) > 1


def test_a_session_that_ended_exports_nothing(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    visit.page.get_by_role("button", name="Export or import").click()
    clinic.end_sessions()
    visit.page.get_by_role("button", name="Labels (zip)").click()
    expect(visit.page.locator(".signin")).to_contain_text("Your session has ended")
    expect(visit.page.get_by_role("dialog")).to_have_count(0)
