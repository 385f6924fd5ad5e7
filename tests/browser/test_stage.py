"""The photograph on the review page: its overlay, fingers on it, and the patient's earlier ones."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from tests.browser.conftest import Meet
from tests.browser.world import Clinic


def test_it_is_said_when_another_version_drew_the_overlay(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    page.locator(".list a").first.wait_for()
    visit.press("Enter")
    visit.case()
    told = page.locator(".stage .word")
    toggle = page.get_by_role("button", name="What the model looks at")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    expect(told).to_be_empty()

    def newer(route: Route) -> None:
        found = route.fetch()
        route.fulfill(response=found, headers={**found.headers, "x-model-version": "99"})

    page.route("**/overlay", newer)
    page.reload()
    toggle.click()
    expect(told).to_contain_text("Drawn by version 99, which serves now; version")
    toggle.click()
    expect(told).to_be_empty()


def test_a_photograph_that_comes_late_does_not_take_the_overlays_place(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    held: list[Route] = []
    page.route("**/image", lambda route: held.append(route))
    page.locator(".list a").first.click()
    toggle = page.get_by_role("button", name="What the model looks at")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    for route in held:
        route.continue_()
    page.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 0")
    # It is shown, if at all, as soon as it is decoded: which this waits for as well.
    page.evaluate("() => document.querySelector('.stage img').decode()")
    page.evaluate("() => new Promise((done) => setTimeout(done, 100))")
    assert page.locator(".stage img:not([hidden])").count() == 2
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".stage img:not([hidden])")).to_have_count(1)


def test_fingers_zoom_move_and_scroll_past(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader(), viewport={"width": 820, "height": 1180}, has_touch=True)
    visit.page.locator(".list a").first.tap()
    visit.case()
    box = visit.page.locator(".stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    wire = visit.context.new_cdp_session(visit.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": x + dx, "y": y + dy, "id": number} for number, (dx, dy) in enumerate(points)]
        wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    zoom = visit.page.get_by_label("Zoom", exact=True)
    touch("touchStart", (-20, -20), (20, 20))
    for step in range(2, 7):
        touch("touchMove", (-20 * step / 2, -20 * step / 2), (20 * step / 2, 20 * step / 2))
    touch("touchEnd")
    expect(zoom).to_have_text("300 %")
    before = visit.page.locator(".stage img:not([hidden])").get_attribute("style")
    touch("touchStart", (0, 0))
    touch("touchMove", (60, 40))
    touch("touchEnd")
    assert visit.page.locator(".stage img:not([hidden])").get_attribute("style") != before
    assert visit.page.evaluate("scrollY") == 0
    assert visit.page.evaluate("visualViewport.scale") == 1
    # The model's view is zoomed and moved as the photograph is: both of its layers alike.
    visit.page.get_by_role("button", name="What the model looks at").tap()
    visit.page.wait_for_function("() => document.querySelectorAll('.stage img:not([hidden])').length === 2")
    touch("touchStart", (-20, 0), (20, 0))
    touch("touchMove", (-40, 0), (40, 0))
    touch("touchEnd")
    expect(zoom).to_have_text("200 %")
    layers = visit.page.locator(".stage img:not([hidden])")
    one, other = (layers.nth(number).evaluate("image => image.style.transform") for number in (0, 1))
    assert one == other


def test_earlier_photographs_of_the_patient(clinic: Clinic, meet: Meet) -> None:
    clinic.visits(["1", "2", "3"], size=256)
    visit = meet(clinic.reader())
    page = visit.page
    page.locator("#task").select_option("dr_grading")
    expect(page.locator(".list a")).to_have_count(3)
    thumbs = page.locator("button.thumb")
    counts = []
    for number in range(3):
        visit.show(page.locator(".list a").nth(number).get_attribute("href") or "")
        visit.case()
        counts.append(thumbs.count())
        if thumbs.count():
            thumbs.first.click()
            expect(page.locator(".stage .caption")).to_contain_text("Earlier:")
            thumbs.first.click()
            expect(page.locator(".stage .caption")).to_have_count(0)
        visit.press("q")
        page.locator(".list a").first.wait_for()
    assert sorted(counts) == [0, 1, 2]
