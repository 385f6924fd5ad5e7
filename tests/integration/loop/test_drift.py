"""Drift from end to end: a model is trained, served and asked; sharp photographs, then blurred ones.

Everything by the commands and routes that people use, and the page of models in a Chromium.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import _visit
from tests.browser.conftest import browser as browser
from tests.integration.loop.test_whole_loop import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TASK = "skin_lesion"
TRAINED, SENT = 600, 250
#: A network of a few layers that learns next to nothing: what is watched is what goes in and what comes out.
SMALL = [
    "--backbone=test_efficientnet",
    "--set=weights=none",
    "--set=input_size=64",
    "--set=train.epochs=1",
    "--set=train.batch_size=16",
    "--set=export.precisions=[fp32]",
    "--set=gate.floors={}",
]


def cut(source: Path, folder: Path) -> list[bytes]:
    """A part of HAM10000 as a source, and other photographs, both drawn by chance; no lesion is in both."""
    with (source / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list({row["lesion_id"]: row for row in csv.DictReader(stream)}.values())
    chosen = [rows[at] for at in np.random.default_rng(5).permutation(len(rows))[: TRAINED + SENT]]
    (folder / "images").mkdir(parents=True)
    for row in chosen[:TRAINED]:
        shutil.copy(source / "images" / f"{row['image_id']}.jpg", folder / "images")
    with (folder / "HAM10000_metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen[:TRAINED])
    return [(source / "images" / f"{row['image_id']}.jpg").read_bytes() for row in chosen[TRAINED:]]


def blurred(data: bytes) -> bytes:
    """By two pixels at a width of 224."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    soft = cv2.GaussianBlur(picture, (0, 0), 2.0 * picture.shape[1] / 224)
    return bytes(cv2.imencode(".png", soft)[1])


def send(app: httpx.Client, pictures: list[bytes], kind: str) -> None:
    for data in pictures:
        sent = app.post(
            "/v1/predictions", content=data, params={"task": TASK}, headers={"content-type": kind}
        )
        assert sent.status_code == 201, sent.text


def gauges(metrics: str) -> dict[str, float]:
    """The severity and the images of the newest window, as Prometheus would read them."""
    found = {}
    for line in metrics.splitlines():
        for name in ("severity", "images"):
            if line.startswith(f'retiderm_drift_{name}{{model="{TASK}",version="1"}}'):
                found[name] = float(line.rpartition(" ")[2])
    return found


def test_blurred_photographs_alarm_and_sharp_ones_do_not(
    shared_data: Path, browser: Browser, tmp_path: Path
) -> None:
    sharp = cut(shared_data / "ham10000_200x150", tmp_path / "ham")
    place = Place(tmp_path)
    place.environment["GATEWAY_REQUESTS_PER_MINUTE"] = "100000"
    made = place.run("run", TASK, "--data", f"ham10000:{tmp_path / 'ham'}", *SMALL)
    assert (made["status"], made["promoted"]) == ("completed", True)

    # What the pipeline exported is all that there is to judge by.
    (reference,) = (place.home.serving / TASK).glob("versions/*/reference.npz")
    with np.load(reference, allow_pickle=False) as arrays:
        names = {name for name in arrays.files if name.startswith("drift.")}
        kept = len(arrays["drift.group"])
    wanted = ("colour", "distance", "exposure", "gradable", "group", "scores", "sharpness")
    assert names == {f"drift.{name}" for name in wanted}
    assert kept > 50

    app_token = place.call("token", "create", "camera").strip()
    reader_token = place.call("token", "create", "ada", "--role", "reviewer", "--kind", "bearer").strip()
    with place.serving(), place.client(app_token) as app, place.client(reader_token) as reader:

        def look() -> dict[str, Any]:
            told = reader.get(f"/review/api/drift/{TASK}")
            assert told.status_code == 200, told.text
            found: dict[str, Any] = told.json()
            return found

        send(app, sharp, "image/jpeg")
        found = look()
        sides = found["windows"]["images"]
        assert (found["severity"], found["alarm"]) == ("ok", False), found["reason"]
        assert (sides["whole"]["images"], sides["running"]["images"]) == (200, 50)
        assert gauges(app.get("/metrics").text) == {"severity": 0, "images": 200}
        judged = {one["measure"] for one in found["findings"] if one["severity"] == "ok"}
        assert judged >= {"refused", "sharpness", "exposure", "colour", "embedding", "unusual", "class_mix"}

        send(app, [blurred(data) for data in sharp], "image/png")
        found = look()
        sides = found["windows"]["images"]
        assert (found["severity"], found["alarm"]) == ("critical", True)
        assert (sides["whole"]["images"], sides["running"]["images"]) == (200, 100)
        assert {one["measure"] for one in found["findings"] if one["alarm"]} >= {"refused", "sharpness"}
        assert gauges(app.get("/metrics").text)["severity"] == 3

        visit = _visit(browser, place.gateway)
        visit.sign_in(reader_token)
        visit.show(f"#/models/{TASK}")
        page = visit.page
        page.get_by_text(found["reason"]).first.wait_for()
        page.get_by_text("200 of 200, critical after 200").wait_for()
        with visit.context.expect_page(timeout=180_000) as opened:
            page.get_by_role("link", name="Each measure's values").click()
        values = opened.value
        asked: list[str] = []
        problems: list[str] = []
        values.on("request", lambda request: asked.append(request.url))
        values.on("pageerror", lambda error: problems.append(str(error)))
        values.on("console", lambda told: problems.append(told.text) if told.type == "error" else None)
        # Again, now that somebody listens; the page is kept.
        values.reload(timeout=180_000)
        values.get_by_role("heading", name="Drift of skin_lesion: critical").wait_for(timeout=180_000)
        values.locator(".js-plotly-plot").first.wait_for(timeout=180_000)
        assert {url.partition("?")[0] for url in asked if not url.startswith(("blob:", "data:"))} == {
            f"{place.gateway}/review/api/drift/{TASK}/page"
        }
        assert not problems
        # Neither the reader's session nor anything of this origin is within the page's reach.
        assert values.evaluate("self.origin") == "null"
        visit.context.close()
        assert not visit.problems
