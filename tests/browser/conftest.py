"""A real Chromium, and a watch over everything that the page asks for or complains about."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.world import Clinic, World, world

#: What a browser says itself of an answer above 399: the page tells it in its own words.
_STATUS = re.compile(r"Failed to load resource: (the server responded with a status of|net::ERR_INTERNET)")
#: How long anything on a page may take: a machine that is busy with other things is slow, not wrong.
PATIENCE_MS = 180_000
# What the page says it says for six seconds: kept here for whoever looks later.
_WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
globalThis.told = [];
addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("say");
  const note = () => place.textContent && globalThis.told.push(place.textContent);
  if (place) new MutationObserver(note).observe(place, { childList: true });
});
"""


def _chromium() -> str:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine (Debian's package of that name)")
    return path


# Of a module, not of the session: while Playwright is open its event loop runs in this thread, and nobody
# else's test could run one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = _chromium()
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        found = playwright.chromium.launch(
            timeout=PATIENCE_MS,
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The servers, once for every file: tests take tenants of their own."""
    _chromium()
    with world(tmp_path_factory.mktemp("review")) as made:
        yield made


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


@dataclass
class Visit:
    """A browser of one person, who may or may not be signed in."""

    url: str
    context: BrowserContext
    page: Page
    asked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self, hash: str = "") -> None:
        """Go to the page."""
        self.page.goto(f"{self.url}/review/{hash}")

    def sign_in(self, token: str) -> None:
        """Sign in, as far as the queue."""
        self.open()
        self.page.locator("#token").fill(token)
        self.page.keyboard.press("Enter")
        self.page.locator("h1", has_text="Queue").wait_for()

    def show(self, hash: str) -> None:
        """Go to a part of the page, as a link in it would."""
        self.page.evaluate("hash => { location.hash = hash; }", hash)

    def case(self) -> str:
        """The id of the case that is shown, when it is: keys pressed before go nowhere."""
        self.page.wait_for_function(
            """() => {
              const shown = document.querySelector(".case");
              if (location.hash !== `#/case/${shown?.dataset.case}`) return false;
              return shown.querySelector(".stage img:not([hidden])") !== null;
            }"""
        )
        return str(self.page.evaluate("location.hash")).removeprefix("#/case/")

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def after(self, work: Callable[[], Any], before: str) -> str:
        """The case that is shown after ``work``, when it is another one than ``before``."""
        work()
        self.page.wait_for_function("before => location.hash !== `#/case/${before}`", arg=before)
        return self.case()

    def told(self, text: str) -> None:
        """Wait until the page says it, or has said it since we last waited for something that it says."""
        self.page.wait_for_function(
            """text => {
              const at = told.findIndex((one) => one.includes(text));
              told.splice(0, at + 1);
              return at >= 0;
            }""",
            arg=text,
        )


Meet = Callable[..., Visit]


@pytest.fixture
def meet(served: World, browser: Browser) -> Iterator[Meet]:
    """Open a browser of one more person; at the end, none may have asked elsewhere or complained."""
    with contextlib.ExitStack() as stack:
        visits: list[Visit] = []

        def begin(token: str | None = None, url: str = served.live.url, **options: Any) -> Visit:
            visit = _visit(browser, url, **options)
            stack.callback(visit.context.close)
            visits.append(visit)
            if token is not None:
                visit.sign_in(token)
            return visit

        yield begin
        for visit in visits:
            assert not visit.problems
            own = urlsplit(visit.url).netloc
            assert {urlsplit(asked).netloc for asked in visit.asked if not asked.startswith("blob:")} == {own}


def _visit(browser: Browser, url: str, **options: Any) -> Visit:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    visit = Visit(url, context, page)
    page.add_init_script(_WATCH)
    page.on("request", lambda request: visit.asked.append(request.url))
    page.on("pageerror", lambda error: visit.problems.append(f"{error}\n{error.stack}"))

    def heard(message: Any) -> None:
        if message.type == "error" and not _STATUS.match(message.text):
            visit.problems.append(message.text)

    page.on("console", heard)
    return visit
