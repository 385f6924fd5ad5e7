"""Every page of the review page: nothing that axe calls serious, nothing that runs out at the side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Meet, Visit
from tests.browser.world import Clinic, World

SMALL, LARGE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
LOOKS = [
    pytest.param("light", LARGE, id="light-1280"),
    pytest.param("dark", SMALL, id="dark-390"),
    pytest.param("dark", LARGE, id="dark-1280", marks=pytest.mark.slow),
    pytest.param("light", SMALL, id="light-390", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def clinic(served: World) -> Clinic:
    """Lesions of which one was rejected, and a patient's four visits."""
    made = served.clinic("looks")
    keys = made.lesions(4, size=256)
    made.visits("1234", size=256)
    made.reject(keys[0], "The app's user thinks that it is a mole.")
    return made


@pytest.mark.parametrize(("scheme", "size"), LOOKS)
def test_nothing_serious_on_any_page(clinic: Clinic, meet: Meet, scheme: str, size: dict[str, int]) -> None:
    visit = meet(viewport=size, color_scheme=scheme)
    for name, go in _pages(clinic.reader(), visit).items():
        go()
        _look(visit, name)
    # By hand it is the other colours.
    visit.page.get_by_role("button", name="Light or dark").click()
    for hash in ("#/queue", "#/models/skin_lesion"):
        visit.show(hash)
        visit.page.locator("h1").wait_for()
        _look(visit, f"{hash} in the other colours")


def _pages(token: str, visit: Visit) -> dict[str, Callable[[], object]]:
    """Every page and dialog, in an order in which each is reached from the one before."""
    page = visit.page

    def wrong() -> None:
        page.locator("#token").fill("nonsense")
        visit.press("Enter")
        page.get_by_role("alert").get_by_text("not known here").wait_for()

    def case() -> None:
        visit.press("Enter")
        visit.case()

    def explained() -> None:
        visit.press("e")
        page.wait_for_function("() => document.querySelectorAll('.stage img:not([hidden])').length === 2")

    def done() -> None:
        shown = visit.case()
        visit.after(lambda: visit.press("2", "Enter"), shown)
        visit.show(f"#/case/{shown}")
        visit.case()

    def earlier() -> None:
        visit.show("#/queue")
        page.locator("#task").select_option("dr_grading")
        page.locator(".agreement").wait_for()
        for link in page.locator(".list a").all():
            visit.show(link.get_attribute("href") or "")
            visit.case()
            if page.locator("button.thumb").count():
                break
            visit.show("#/queue")
            page.locator(".list a").first.wait_for()
        page.locator("button.thumb").first.click()
        page.locator(".stage .caption").wait_for()

    def batch() -> None:
        visit.show("#/queue")
        page.get_by_role("button", name="Draw a batch").click()

    def exchange() -> None:
        visit.press("Escape")
        page.get_by_role("button", name="Export or import").click()
        page.get_by_role("button", name="Import", exact=True).click()
        page.get_by_role("alert").get_by_text("Choose a file first").wait_for()

    def empty() -> None:
        visit.press("Escape")
        page.get_by_role("button", name="readers disagree").click()
        page.locator(".list .note").wait_for()

    def models() -> None:
        visit.show("#/models")
        page.locator("h1", has_text="Models").wait_for()

    def model() -> None:
        visit.show("#/models/skin_lesion")
        page.get_by_text("No registry is reachable").wait_for()
        page.locator("h2", has_text="Drift").wait_for()
        page.locator("summary").click()

    def gone() -> None:
        visit.press("Escape")
        visit.show("#/case/00000000-0000-4000-8000-000000000000")
        page.get_by_role("alert").wait_for()

    return {
        "sign in": lambda: (visit.open(), page.locator("#token").wait_for()),
        "wrong token": wrong,
        "queue": lambda: visit.sign_in(token),
        "case": case,
        "with what the model looks at": explained,
        "can't be graded": lambda: visit.press("c"),
        "labelled": done,
        "earlier": earlier,
        "batch": batch,
        "export and import": exchange,
        "nothing": empty,
        "models": models,
        "model": model,
        "keys": lambda: visit.press("?"),
        "gone": gone,
    }


def _look(visit: Visit, name: str) -> None:
    found = Axe().run(visit.page).response["violations"]
    grave = [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert not grave, f"{name}: {grave}"
    wide = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], f"{name} is {wide[0]} wide"
