"""``/docs`` in a browser that may reach this server only."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import httpx
import pytest

from tests.gateway_live import Live, live_gateway

NO_MODELS = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_gateway(tmp_path_factory.mktemp("docs"), NO_MODELS, GATEWAY_SYSTEMS="s0,s4") as found:
        yield found


def test_the_page_names_no_other_address(live: Live) -> None:
    with live.client() as client:
        page = client.get("/docs")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "unsafe" not in page.headers["content-security-policy"]
        assert "//" not in page.text.replace("<!doctype", "")
        assert not re.search(r"<script>|\bstyle=|\son[a-z]+=", page.text)
        for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            found = client.get(f"/{name}")
            assert found.status_code == 200, name
            if name.startswith("docs/"):
                again = client.get(f"/{name}", headers={"if-none-match": found.headers["etag"]})
                assert again.status_code == 304
                assert again.content == b""
        for name in ("start", "..%2f..%2fpyproject.toml", "__init__.py", "main.py"):
            assert client.get(f"/docs/{name}").status_code == 404


def test_a_browser_shows_it_and_breaks_no_rule(live: Live) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    from playwright.sync_api import Request, sync_playwright

    asked: list[str] = []
    said: list[str] = []
    token = live.token()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)

        def note(request: Request) -> None:
            asked.append(request.url)

        page.on("request", note)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.goto(f"{live.url}/docs")
        page.wait_for_selector("text=/fit_ok", timeout=120_000)
        page.click("button.authorize")
        page.fill(".auth-container input >> nth=0", token)
        page.click(".auth-container button.authorize >> nth=0")
        page.click("button.btn-done")
        page.click("#operations-gateway-livez_livez_get")
        page.click("text=Try it out")
        page.click("button.execute")
        page.wait_for_selector(".live-responses-table :text('alive')", timeout=120_000)
        browser.close()
    assert said == []
    assert {httpx.URL(url).host for url in asked if not url.startswith("data:")} == {"127.0.0.1"}


def test_every_operation_is_named_once_and_says_its_errors(live: Live) -> None:
    with live.client() as client:
        document = client.get("/openapi.json").json()
    operations = [
        (path, method, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]
    names = [said["operationId"] for _, _, said in operations]
    assert len(names) == len(set(names))
    assert [tag["name"] for tag in document["tags"]]
    for path, method, said in operations:
        where = f"{method} {path}"
        statuses = set(said["responses"])
        assert {"503", "504"} <= statuses, where
        assert ("401" in statuses) == ("security" in said), where
        for status, answer in said["responses"].items():
            assert "X-Request-ID" in answer["headers"], where
            if status in ("429", "503"):
                assert "Retry-After" in answer["headers"], where
    # Two systems' health: by their prefixes.
    assert {"/s0/health", "/s4/health"} <= set(document["paths"])
    assert "/health" not in document["paths"]
