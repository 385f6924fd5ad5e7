from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.errors import DataError
from serving.core.drift import Settings, Window, judge
from tests.drift_windows import reference, window
from training.drift.page import POLICY, frames, judgement, page, write_page

FAST = Settings(draws=1000)
CHROMIUM = Path("/usr/bin/chromium")


def test_the_page_holds_our_judgement_and_evidentlys_charts(tmp_path: Path) -> None:
    known, given = reference(), window(200, 3, warmer=30.0)
    report = judge(known, given, FAST)
    write_page(tmp_path / "page.html", report, known, given)
    text = (tmp_path / "page.html").read_text()
    assert POLICY.replace("'", "&#x27;") in text
    assert report.reason.replace("'", "&#x27;") in text
    assert "retiderm's own, in thresholds" in text
    assert "Drift in column 'warmth'" in text
    # What a browser would load by itself.
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//", text)


def test_columns_are_in_peoples_units() -> None:
    before, now = frames(reference(), window(100, 3))
    assert list(before) == list(now)
    assert {"sharpness", "warmth", "grade: answer", "grade: uncertain", "unusual"} <= set(before)
    assert set(before["grade: answer"]) <= {"a", "b", "c"}
    assert 0.5 < before["sharpness"].median() < 0.8


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing that the bundle's reference"):
        frames(reference(), Window(images=50))


def test_text_is_escaped_and_another_layout_is_an_error() -> None:
    import dataclasses

    report = dataclasses.replace(judge(reference(), window(60, 3), FAST), task="<script>x</script>")
    assert "<script>" not in judgement(report)
    assert "<body><main" in page(report, "<html><head></head><body></body></html>")
    with pytest.raises(DataError, match="no <body>"):
        page(report, "<html><head></head></html>")


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium here")
@pytest.mark.slow
def test_a_browser_draws_it_without_a_network(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    known, given = reference(), window(200, 3)
    write_page(tmp_path / "page.html", judge(known, given, FAST), known, given)
    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            tab = browser.new_page()
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("console", lambda message: complaints.append(message.text))
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.goto((tmp_path / "page.html").as_uri())
            tab.wait_for_selector(".js-plotly-plot svg", timeout=60_000)
        finally:
            browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert complaints == []
