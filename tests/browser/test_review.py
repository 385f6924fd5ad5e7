"""The review page in a real Chromium, against a real gateway with real predictors."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from serving.gateway.access import Role
from serving.gateway.store.repositories import queue, tokens
from tests.browser.conftest import Meet, Visit
from tests.browser.world import HOSTILE, Clinic, World
from tests.bundles import TITLES


@pytest.fixture
def clinic(served: World, request: pytest.FixtureRequest) -> Iterator[Clinic]:
    """A tenant of this test's own, with six lesions that wait."""
    made = served.clinic(re.sub(r"\W", "-", request.node.name)[:60])
    made.lesions(6, size=256)
    yield made
    # The log has neither a token nor a word of a client's.
    log = (served.live.folder / "gateway.log").read_text()
    assert "rtk_" not in log
    assert "owned" not in log


def test_only_a_readers_token_opens_it_and_signing_out_ends_it(clinic: Clinic, meet: Meet) -> None:
    visit = meet()
    page = visit.page
    visit.open()
    alert = page.get_by_role("alert")
    page.locator("#token").fill("nonsense")
    visit.press("Enter")
    expect(alert).to_have_text("This token is not known here, has expired, or was revoked.")
    page.locator("#token").fill(clinic.live.token(tenant=clinic.tenant))
    visit.press("Enter")
    expect(alert).to_contain_text("not a reviewer's")

    token = clinic.reader()
    visit.sign_in(token)
    expect(page.locator("#reader")).to_have_text("Dr. Ada")
    (cookie,) = visit.context.cookies()
    assert cookie["httpOnly"]
    assert (cookie["sameSite"], cookie["path"], cookie["secure"]) == ("Strict", "/review", False)
    assert token not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    assert token not in page.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }])")
    assert not any(token in asked or cookie["value"] in asked for asked in visit.asked)

    page.locator("#leave").click()
    page.locator("#token").wait_for()
    assert visit.context.cookies() == []
    assert page.evaluate("sessionStorage.length") == 0
    with clinic.live.client(cookies={"retiderm_session": cookie["value"]}) as taken:
        assert taken.get("/review/api/queue").status_code == 401


def test_a_session_is_no_longer_than_its_token(clinic: Clinic) -> None:
    page = {"x-retiderm-page": "1"}
    with clinic.live.client() as client:
        short = clinic.live.token(Role.REVIEWER, tenant=clinic.tenant, lives=dt.timedelta(hours=1))
        told = client.post("/review/api/session", json={"token": short}, headers=page)
        left = dt.datetime.fromisoformat(told.json()["expires_at"]) - dt.datetime.now(dt.UTC)
        assert left <= dt.timedelta(hours=1)
        told = client.post("/review/api/session", json={"token": clinic.reader()}, headers=page)
        assert told.status_code == 201
        assert client.get("/review/api/queue").status_code == 200
        # What another site's form could send: no header of ours.
        assert client.post("/review/api/session", json={"token": clinic.reader()}).status_code == 403
        assert client.post("/review/api/batches", json={"task": "skin_lesion"}).status_code == 403
        with clinic.live.scope(clinic.tenant) as scope:
            (own,) = (
                row
                for row in tokens.listed(scope)
                if row.subject == "Dr. Ada" and row.last_used_at is not None and row.kind == "api_key"
            )
            tokens.revoke(scope, own.id)
        assert client.get("/review/api/queue").status_code == 401


def test_classes_are_called_by_what_people_read(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    answers = page.locator(".list .what b")
    expect(answers).to_have_count(6)
    with clinic.live.client(clinic.reader()) as client:
        said = client.get("/review/api/queue").json()["items"]
    names = [one["labels"]["diagnosis"] for one in said]
    expect(answers).to_have_text([TITLES.get(name, name) for name in names])
    page.locator(".list a").first.click()
    visit.case()
    expect(page.locator(".choice:has([value=mel]) .title")).to_have_text("Melanoma")
    expect(page.locator(".choice:has([value=akiec]) .title")).to_be_empty()


def test_names_alone_do_where_the_models_say_no_more(clinic: Clinic, meet: Meet) -> None:
    visit = meet()
    visit.page.route("**/review/api/titles*", lambda route: route.fulfill(status=502))
    visit.sign_in(clinic.reader())
    visit.page.locator(".list a").first.click()
    visit.case()
    expect(visit.page.locator(".choice .title").first).to_be_empty()
    visit.press("6", "Enter")
    visit.told("Saved.")
    assert [row.value for row in clinic.labels()] == ["nv"]


def test_three_cases_by_keys_alone(clinic: Clinic, meet: Meet) -> None:
    visit = meet()
    page = visit.page
    visit.open()
    page.locator("#token").wait_for()
    page.keyboard.type(clinic.reader())
    visit.press("Enter")
    page.locator(".list a").first.wait_for()
    visit.press("Enter")

    first = visit.case()
    second = visit.after(lambda: visit.press("n"), first)
    assert visit.after(lambda: visit.press("p"), second) == first
    zoom = page.get_by_label("Zoom", exact=True)
    visit.press("+", "+", "ArrowLeft", "ArrowUp")
    expect(zoom).to_have_text("225 %")
    visit.press("-")
    expect(zoom).to_have_text("150 %")
    visit.press("0")
    expect(zoom).to_have_text("100 %")
    visit.press("e")
    expect(page.get_by_role("button", name="What the model looks at")).to_have_attribute(
        "aria-pressed", "true"
    )
    visit.press("]", "]", "[")
    expect(page.locator("#opacity")).to_have_attribute("aria-valuetext", "70 %")
    visit.press("+")
    expect(zoom).to_have_text("150 %")
    visit.press("2", "3", "t")
    page.keyboard.type("seen twice, s and u")
    visit.press("Escape")
    assert visit.after(lambda: visit.press("Enter"), first) == second

    visit.press("c", "4")
    third = visit.after(lambda: visit.press("Enter"), second)
    fourth = visit.after(lambda: visit.press("s"), third)
    # Skipped by mistake: undo leads back to it, and its label is its own.
    assert visit.after(lambda: visit.press("u"), fourth) == third
    visit.press("5", "1")
    visit.after(lambda: visit.press("Enter"), third)
    visit.press("u")
    assert visit.after(lambda: None, fourth) == third
    visit.press("6")
    visit.after(lambda: visit.press("Enter"), third)
    visit.press("q")
    expect(page.locator(".done")).to_contain_text("3 of 6 read")
    expect(page.locator(".list a")).to_have_count(3)

    said = [(label.value, label.cannot_grade, label.comment, label.reader) for label in clinic.labels()]
    assert said == [
        ("bkl", None, "seen twice, s and u", "Dr. Ada"),
        (None, "wrong subject", None, "Dr. Ada"),
        ("nv", None, None, "Dr. Ada"),
    ]


def test_undo_keeps_what_was_entered_of_another_image(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    page.locator(".list a").first.wait_for()
    visit.press("Enter")
    first = visit.case()
    visit.press("1")
    second = visit.after(lambda: visit.press("Enter"), first)
    visit.press("2")
    assert visit.after(lambda: visit.press("u"), second) == first
    drafts = "() => Object.keys(sessionStorage).filter((name) => name.includes(':draft:'))"
    (kept,) = page.evaluate(drafts)
    assert kept.endswith(second)


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


def test_two_readers_disagree_and_a_third_decides(clinic: Clinic, meet: Meet) -> None:
    ada = meet(clinic.reader())
    page = ada.page
    page.get_by_role("button", name="Draw a batch").click()
    page.locator("#size").fill("4")
    page.locator("#two").check()
    page.get_by_role("button", name="Draw", exact=True).click()
    ada.told("A batch of 4 was drawn.")
    expect(page.locator(".list a")).to_have_count(4)
    expect(page.get_by_text("two readers", exact=True)).to_have_count(4)

    def read(visit: Visit, *digits: str) -> None:
        visit.press("Enter")
        for digit in digits:
            shown = visit.case()
            # What the other one said is not shown before both have.
            expect(visit.page.get_by_role("region", name="Labels")).to_have_count(0)
            visit.press(digit, "Enter")
            visit.page.wait_for_function("shown => location.hash !== `#/case/${shown}`", arg=shown)

    read(ada, "1", "2", "1", "2")
    page.get_by_text("You have read all that waits. 4 images need a second reader.").wait_for()

    ben = meet(clinic.reader("Dr. Ben"))
    batch = ben.page.locator("#batch_id")
    expect(batch.locator("option")).to_have_count(2)
    batch.select_option(index=1)
    expect(ben.page.locator(".list a")).to_have_count(4)
    read(ben, "1", "2", "2", "2")
    ben.page.get_by_role("button", name="readers disagree").click()
    expect(ben.page.locator(".list a")).to_have_count(1)
    ben.press("Enter")
    ben.case()
    expect(ben.page.locator(".notice")).to_contain_text("You and another reader disagree")

    cleo = meet(clinic.reader("Dr. Cleo"))
    cleo.page.get_by_role("button", name="readers disagree").click()
    expect(cleo.page.locator(".list a")).to_have_count(1)
    # 3 of 4 alike; by chance 1/2 · 1/4 + 1/2 · 3/4 = 1/2: kappa is 1/2.
    expect(cleo.page.locator(".agreement")).to_contain_text("diagnosis: κ 0.50, 3 of 4 images alike")
    cleo.press("Enter")
    disputed = cleo.case()
    expect(cleo.page.locator(".notice")).to_have_text("Dr. Ada and Dr. Ben disagree. Your label decides.")
    cleo.press("5", "Enter")
    cleo.told("That was the last one here.")
    cleo.page.locator("h1", has_text="Queue").wait_for()
    cleo.show(f"#/case/{disputed}")
    expect(cleo.page.get_by_role("region", name="Labels")).to_contain_text("decides")
    assert [(one.reader, one.value) for one in clinic.labels() if one.source == "adjudication"] == [
        ("Dr. Cleo", "mel")
    ]


def test_the_second_of_two_reviewers_on_one_case_is_told_who_was_first(clinic: Clinic, meet: Meet) -> None:
    ada, ben = meet(clinic.reader()), meet(clinic.reader("Dr. Ben"))
    ada.press("Enter")
    shown = ada.case()
    ben.show(f"#/case/{shown}")
    ben.case()
    ada.press("1", "Enter")
    ada.told("Saved.")
    ben.press("2", "Enter")
    alert = ben.page.locator(".actions").get_by_role("alert")
    expect(alert).to_contain_text("This image was labelled by Dr. Ada at ")
    assert [label.reader for label in clinic.labels()] == ["Dr. Ada"]
    # Nothing that Dr. Ben entered is gone; they go on, and see whose it is when they come back.
    expect(ben.page.locator("input[value=bcc]")).to_be_checked()
    assert ben.after(lambda: alert.get_by_role("button", name="Go on").click(), shown) != shown
    ben.show(f"#/case/{shown}")
    expect(ben.page.locator(".notice")).to_contain_text("This image was labelled by Dr. Ada")
    expect(ben.page.get_by_role("button", name="Save and go on")).to_be_disabled()


def test_a_label_on_a_case_that_was_deleted(clinic: Clinic, meet: Meet) -> None:
    patient = clinic.visits(["2"], size=256)
    visit = meet(clinic.reader())
    visit.page.locator("#task").select_option("dr_grading")
    expect(visit.page.locator(".list a")).to_have_count(1)
    visit.press("Enter")
    visit.case()
    with clinic.live.client(clinic.live.token(Role.ADMIN, tenant=clinic.tenant)) as admin:
        assert admin.delete(f"/v1/patients/{patient}").status_code in (200, 204)
    visit.press("2", "Enter")
    alert = visit.page.locator(".actions").get_by_role("alert")
    expect(alert).to_contain_text("not found")
    alert.get_by_role("link", name="Back to the queue").click()
    expect(visit.page.locator(".list .note")).to_contain_text("Nothing waits")
    assert clinic.labels() == []


def test_a_session_that_ends_in_the_middle_of_a_label(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    visit.press("Enter")
    shown = visit.case()
    visit.press("4", "t")
    visit.page.keyboard.type("half a sentence")
    clinic.end_sessions()
    visit.press("Control+Enter")
    expect(visit.page.locator(".signin")).to_contain_text("Your session has ended")
    # Somebody else at this tablet sends nothing of it.
    visit.page.locator("#token").fill(clinic.reader("Dr. Ben"))
    visit.press("Enter")
    expect(visit.page.locator("#reader")).to_have_text("Dr. Ben")
    visit.case()
    expect(visit.page.locator("#comment")).to_have_value("")
    assert clinic.labels() == []
    clinic.end_sessions()
    visit.page.reload()

    visit.page.locator("#token").fill(clinic.reader())
    visit.press("Enter")
    visit.told("What you had entered is saved.")
    assert visit.case() == shown
    expect(visit.page.locator(".notice")).to_contain_text("You have labelled this image")
    (label,) = clinic.labels()
    assert (label.value, label.comment, label.reader) == ("df", "half a sentence", "Dr. Ada")


def test_what_is_typed_survives_a_gateway_that_is_away(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    visit.press("Enter")
    visit.case()
    visit.press("3", "t")
    visit.page.keyboard.type("later")
    visit.context.set_offline(True)
    visit.press("Escape", "Enter")
    expect(visit.page.locator(".actions").get_by_role("alert")).to_contain_text("can't be reached")
    visit.context.set_offline(False)
    visit.page.reload()
    visit.case()
    expect(visit.page.locator("#comment")).to_have_value("later")
    visit.press("Enter")
    visit.told("Saved.")
    assert [(label.value, label.comment) for label in clinic.labels()] == [("bkl", "later")]


def test_a_batch_is_drawn_and_read_by_itself(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    page = visit.page
    page.get_by_role("button", name="Draw a batch").click()
    page.locator("#strategy").select_option("k_center")
    page.locator("#size").fill("2")
    page.locator("#seed").fill("7")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator(".list a")).to_have_count(2)
    expect(page.locator(".done")).to_have_text("0 of 2 read (0 %)")
    visit.press("Enter")
    shown = visit.case()
    expect(page.locator(".walk")).to_contain_text("0 of 2 of the batch read")
    visit.press("1")
    shown = visit.after(lambda: visit.press("Enter"), shown)
    visit.press("1", "Enter")
    page.get_by_text("This batch is read.").wait_for()
    page.locator("#batch_id").select_option("")
    expect(page.locator(".list a")).to_have_count(4)
    with clinic.live.scope(clinic.tenant) as scope:
        (batch,) = queue.batches(scope)
        assert (batch.strategy, batch.seed, batch.size, batch.made_by) == ("k_center", 7, 2, "Dr. Ada")
    # What is left is four: a larger batch says so, and after it nothing is left to draw.
    for said in ("A batch of 4 was drawn: no more waited.", "that is in no batch"):
        page.get_by_role("button", name="Draw a batch").click()
        page.get_by_role("button", name="Draw", exact=True).click()
        page.get_by_text(said).wait_for()


def test_heads_are_labelled_one_after_the_other(clinic: Clinic, meet: Meet) -> None:
    clinic.heads({"skin": ("dry", "oily", "normal"), "hair": ("straight", "wavy", "curly")})
    visit = meet(clinic.reader())
    page = visit.page
    page.locator("#task").select_option("skin_profile")
    expect(page.locator(".list a")).to_have_count(2)
    visit.press("Enter")
    shown = visit.case()
    save = page.get_by_role("button", name="Save and go on")
    visit.press("2")
    expect(save).to_be_disabled()
    expect(page.locator("fieldset.current")).to_contain_text("hair")
    visit.press("3")
    shown = visit.after(lambda: visit.press("Enter"), shown)
    # One head alone can't be graded: by Tab and the arrows, as any radio button.
    visit.press("1")
    page.get_by_role("group", name="hair").get_by_role("radio").first.focus()
    visit.press("ArrowUp")
    expect(save).to_be_disabled()
    page.get_by_role("group", name="Why").get_by_role("radio", name="covered").focus()
    visit.press(" ")
    visit.press("Enter")
    visit.told("That was the last one here.")
    said = [(label.head, label.value, label.cannot_grade) for label in clinic.labels()]
    assert said == [
        ("skin", "oily", None),
        ("hair", "curly", None),
        ("skin", "dry", None),
        ("hair", None, "covered"),
    ]


def test_what_clients_write_is_never_markup(clinic: Clinic, meet: Meet) -> None:
    clinic.reject("case-1-0", HOSTILE)
    visit = meet(clinic.reader(HOSTILE[:40]))
    page = visit.page
    visit.press("Enter")
    shown = visit.case()
    expect(page.get_by_role("region", name="What its user said")).to_contain_text(HOSTILE)
    visit.press("c", "6", "t")
    page.keyboard.insert_text(HOSTILE)
    visit.after(lambda: visit.press("Control+Enter"), shown)
    visit.press("q")
    page.get_by_role("button", name="1 done").click()
    expect(page.locator(".list a")).to_have_count(1)
    visit.press("Enter")
    visit.case()
    expect(page.get_by_role("region", name="Labels")).to_contain_text(HOSTILE)
    expect(page.get_by_role("region", name="Labels")).to_contain_text(HOSTILE[:40])
    assert page.locator("img[src=x], main script, b b").count() == 0
    assert "owned" not in page.title()


def test_an_address_that_names_nothing(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    visit.show("#/case/00000000-0000-4000-8000-000000000000")
    expect(visit.page.get_by_role("alert")).to_contain_text("not found")
    visit.show("#/nowhere")
    expect(visit.page.locator("h1")).to_have_text("Queue")
    visit.show("#/models/nothing")
    expect(visit.page.locator("main")).to_contain_text("Nothing serves.")


def test_keys_can_be_switched_off(clinic: Clinic, meet: Meet) -> None:
    visit = meet(clinic.reader())
    visit.press("Enter")
    visit.case()
    visit.press("?")
    visit.page.locator("#single").uncheck()
    visit.press("Escape", "1", "s")
    expect(visit.page.locator("input:checked")).to_have_count(0)
    visit.page.locator("#keys").click()
    visit.page.locator("#single").check()
    visit.press("Escape", "1")
    expect(visit.page.locator("main input:checked")).to_have_count(1)


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
