"""Sessions of the review page: who may begin one, how it ends, and what outlives it."""

from __future__ import annotations

import datetime as dt

from playwright.sync_api import expect

from serving.gateway.access import Role
from serving.gateway.store.repositories import tokens
from tests.browser.conftest import Meet
from tests.browser.world import Clinic


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
