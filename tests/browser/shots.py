"""The pictures of docs/review.md: ``PYTHONPATH=. python tests/browser/shots.py [NAME...]``.

Every page in light and dark, 1280 and 390 pixels wide, of drawn photographs and of small networks with random
weights: what they answer means nothing.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.world import Clinic, world

OUT = Path(__file__).resolve().parents[2] / "docs" / "review"
MOST_BYTES = 100_000
SIZES = {"1280": {"width": 1280, "height": 860}, "390": {"width": 390, "height": 844}}


def main(names: list[str]) -> int:
    """Make them; 1 where one is too large."""
    OUT.mkdir(parents=True, exist_ok=True)
    large = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        with world(Path(folder), registry=True, size=(224, 224)) as made:
            clinic = made.clinic()
            _prepare(clinic)
            token = clinic.reader()
            for scheme in ("light", "dark"):
                for width in SIZES:
                    for name, data in _pages(browser, made.live.url, token, scheme, width):
                        if names and name not in names:
                            continue
                        path = OUT / f"{name}-{scheme}-{width}.webp"
                        path.write_bytes(_webp(data))
                        size = path.stat().st_size
                        large += size > MOST_BYTES
                        print(f"{path.name}: {size / 1000:.0f} kB", flush=True)
        browser.close()
    return 1 if large else 0


def _prepare(clinic: Clinic) -> None:
    """Some work that was done: a batch that two have read, once not alike, and one that a user rejected."""
    cases = clinic.lesions(26, seed=3, size=512)
    clinic.visits("01234", seed=5, size=512)
    clinic.reject(cases[-1], "It has been there since childhood.", reason="a mole")
    page = {"x-retiderm-page": "1"}
    for reader, other in (("Dr. Ada", False), ("Dr. Ben", True)):
        with httpx.Client(base_url=clinic.live.url, headers=page, trust_env=False) as client:
            client.post("/review/api/session", json={"token": clinic.reader(reader)}).raise_for_status()
            if not other:
                wish = {"task": "skin_lesion", "strategy": "margin", "size": 9, "readers": 2}
                batch = client.post("/review/api/batches", json=wish).raise_for_status().json()
            for number, entry in enumerate(batch["entries"]):
                value = ("nv", "mel", "bkl", "nv", "vasc", "bcc", "nv", "mel", "nv")[number]
                if other and number in (1, 6):
                    value = "bkl"
                if other and number == 8:
                    continue
                said = {"heads": {"diagnosis": {"value": value}}}
                client.post(f"/review/api/entries/{entry}/labels", json=said).raise_for_status()


def _pages(browser: Browser, url: str, token: str, scheme: str, width: str) -> Iterator[tuple[str, bytes]]:
    context = browser.new_context(
        viewport=SIZES[width],
        color_scheme=scheme,
        locale="en-GB",
        timezone_id="UTC",  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.goto(f"{url}/review/")
    page.locator("#token").wait_for()
    yield "sign-in", page.screenshot()
    page.locator("#token").fill(token)
    page.keyboard.press("Enter")
    page.locator(".list a").first.wait_for()
    page.locator("#task").select_option("skin_lesion")
    page.locator(".agreement").wait_for()
    yield "queue", page.screenshot()
    page.get_by_role("button", name="Export or import").click()
    page.get_by_role("dialog").get_by_role("button", name="Close").focus()
    yield "exchange", page.screenshot()
    page.keyboard.press("Enter")
    page.locator(".list a").first.click()
    _shown(page)
    page.keyboard.press("6")
    yield "case", page.screenshot()
    page.keyboard.press("e")
    page.wait_for_function("() => document.querySelectorAll('.stage img:not([hidden])').length === 2")
    page.keyboard.press("c")
    page.keyboard.press("1")
    page.evaluate("() => scrollTo(0, 0)")
    yield "model-view", page.screenshot()
    page.evaluate("() => { location.hash = '#/queue'; }")
    page.locator("h1", has_text="Queue").wait_for()
    page.locator("#task").select_option("dr_grading")
    page.wait_for_function("() => document.querySelectorAll('.list a').length === 5")
    for link in [link.get_attribute("href") for link in page.locator(".list a").all()]:
        page.evaluate("hash => { location.hash = hash; }", link)
        _shown(page)
        if page.locator("button.thumb").count() == 4:
            break
    for number in range(4):
        # They are fetched when they come into sight.
        page.locator("button.thumb img").nth(number).scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.evaluate("() => scrollTo(0, 0)")
    yield "earlier", page.screenshot(full_page=True) if width == "1280" else page.screenshot()
    page.evaluate("() => { location.hash = '#/models/skin_lesion'; }")
    page.locator(".ledger").wait_for(timeout=120_000)
    page.locator("h2", has_text="Drift").wait_for()
    yield "models", page.screenshot(full_page=True)
    context.close()


def _shown(page: Page) -> None:
    page.wait_for_function(
        """() => {
          const shown = document.querySelector(".case");
          if (location.hash !== `#/case/${shown?.dataset.case}`) return false;
          return shown.querySelector(".stage img:not([hidden])") !== null;
        }"""
    )
    page.wait_for_timeout(200)


def _webp(png: bytes) -> bytes:
    """As good as it may be within ``MOST_BYTES``."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in (72, 64, 56):
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=quality, method=6)
        if stream.tell() <= MOST_BYTES:
            break
    return stream.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
