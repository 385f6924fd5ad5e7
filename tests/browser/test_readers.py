"""Several people at one image: readers who disagree, who come second, and one who erases it."""

from __future__ import annotations

from playwright.sync_api import expect

from serving.gateway.access import Role
from tests.browser.conftest import Meet, Visit
from tests.browser.world import Clinic


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
