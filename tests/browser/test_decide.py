"""Approve, promote and roll back by the page: the very commands of a terminal, with the very ledger."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Meet
from tests.browser.world import Clinic, World, world
from tests.integration.serving.harness import until

pytestmark = pytest.mark.slow

#: Each button of the page runs a command, which takes seconds to start on a quiet machine.
SLOWLY_MS = 240_000


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("registered"), registry=True) as made:
        yield made


def _registry(made: World, *words: str) -> object:
    command = [sys.executable, "-m", "pipelines.cli", "models", *words, "--json"]
    env = {**os.environ, **made.live.env}
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)


def compare(clinic: Clinic, reader: str, count: int) -> None:
    """Ask about lesions until the challenger has answered so many of them as well.

    It is asked after the champion's answer is given, and not at all where it needs too long to say that it is
    there.
    """

    def compared() -> int:
        answer = client.get("/review/api/models/skin_lesion")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["compared"]["images"])

    with clinic.live.client(reader) as client:
        for number in range(20):
            asked = compared()
            if asked == count:
                return
            clinic.lesions(1, size=256, seed=number + 1)
            with contextlib.suppress(AssertionError):
                until(lambda asked=asked: compared() > asked, timeout_s=10)  # type: ignore[misc]
    raise AssertionError("the challenger was not asked")


def test_a_version_is_approved_promoted_and_rolled_back(registered: World, meet: Meet) -> None:
    clinic = registered.clinic()
    reader = clinic.reader()
    compare(clinic, reader, 3)
    visit = meet(reader, url=registered.live.url)
    page = visit.page
    visit.show("#/models")
    page.locator("h1", has_text="Models").wait_for()
    page.locator(".list a", has_text="skin lesion").click()
    page.set_default_timeout(SLOWLY_MS)
    expect(page.locator("main")).to_contain_text("Gate report of version 3", timeout=SLOWLY_MS)
    expect(page.locator("main")).to_contain_text("waits for approval")
    expect(page.locator("main")).to_contain_text("Both answered 3 images")

    seen = "Both answered 3 images, version 2 as champion and version 3 as challenger"

    def decide(label: str, why: str, then: str) -> None:
        page.get_by_role("button", name=label).click()
        dialog = page.get_by_role("dialog")
        if label.startswith("Promote"):
            expect(dialog).to_contain_text(seen)
        dialog.get_by_label("Why?").fill(why)
        dialog.get_by_role("button", name=label).click()
        page.get_by_role("button", name=then).wait_for()

    decide("Approve version 3", "looked at both", "Promote version 3")
    decide("Promote version 3", "better on the rare ones", "Roll back to version 2")
    # What was seen of it beside the champion is in the ledger, with the decision.
    expect(page.locator(".ledger")).to_contain_text(seen)
    with clinic.app() as app:
        assert app.get("/readyz").status_code == 200
    decide("Roll back to version 2", "it was not", "Roll back to version 3")
    expect(page.locator(".ledger")).to_contain_text("it was not")

    # Nobody else than the reader did it, and the history is whole.
    entries = _registry(registered, "history", "skin_lesion", "--all")
    assert isinstance(entries, list)
    said = [(one["why"], one["who"]) for one in entries if one["who"] == "Dr. Ada" and one["why"]]
    assert [why for why, _ in said] == ["looked at both", "better on the rare ones", "it was not"]
    assert _registry(registered, "verify") == {"ok": True, "findings": []}


def test_two_readers_press_the_same_roll_back(registered: World, meet: Meet) -> None:
    clinic = registered.clinic()
    visits = [meet(clinic.reader(), url=registered.live.url) for _ in range(2)]
    for visit in visits:
        visit.show("#/models/skin_lesion")
        visit.page.get_by_role("button", name="Roll back to version 3").wait_for(timeout=SLOWLY_MS)
    told = ("Done. The ledger has it.", "Version 3 serves already: nothing was changed.")
    for visit, words in zip(visits, told, strict=True):
        page = visit.page
        page.get_by_role("button", name="Roll back to version 3").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Why?").fill("version 3 was better")
        dialog.get_by_role("button", name="Roll back to version 3").click()
        expect(dialog).to_have_count(0, timeout=SLOWLY_MS)
        visit.told(words)
        page.get_by_role("button", name="Roll back to version 2").wait_for(timeout=SLOWLY_MS)
    # As it was, for the next test; by the page, which remembers for a while what the registry said.
    page.get_by_role("button", name="Roll back to version 2").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill("as before")
    dialog.get_by_role("button", name="Roll back to version 2").click()
    page.get_by_role("button", name="Roll back to version 3").wait_for(timeout=SLOWLY_MS)


def test_what_the_registry_refuses_is_told(registered: World, meet: Meet) -> None:
    visit = meet(registered.clinic().reader(), url=registered.live.url)
    page = visit.page
    visit.show("#/models/skin_lesion")
    button = page.get_by_role("button", name="Roll back to version 3")
    button.wait_for(timeout=SLOWLY_MS)
    button.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill("no")
    dialog.get_by_role("button", name="Roll back").click()
    # Two letters are no reason: the field itself says so, and nothing is sent.
    assert dialog.get_by_label("Why?").evaluate("field => !field.validity.valid")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
