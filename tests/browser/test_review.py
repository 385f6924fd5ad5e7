"""The review page in a real Chromium, against a real gateway with real predictors: one reader's way."""

from __future__ import annotations

from playwright.sync_api import expect

from serving.gateway.store.repositories import queue
from tests.browser.conftest import Meet
from tests.browser.world import HOSTILE, Clinic
from tests.bundles import TITLES


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
    for tell in (
        lambda: visit.told("A batch of 4 was drawn: no more waited."),
        lambda: page.get_by_text("that is in no batch").wait_for(),
    ):
        page.get_by_role("button", name="Draw a batch").click()
        page.get_by_role("button", name="Draw", exact=True).click()
        tell()


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
