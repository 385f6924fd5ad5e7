"""The review page with a long queue: how soon a reader sees it, and how soon a label is saved.

Run: ``python -m benchmarks.review [--cases 10000] [--rounds 20] [--labels 100] [--out FILE.csv]``.

A real gateway on SQLite, its queue filled by the repositories, and Debian's Chromium on the same machine
without anything in its cache. A reader is signed in; then

- ``first paint``: from asking for the page to the first of its content (``first-contentful-paint``);
- ``list visible``: until the first fifty cases stand in it;
- ``label saved``: from the key that saves to the page saying that it did;
- ``next case``: from that key to the next photograph in its place.

Exits with 1 where a 95th percentile misses its target.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gateway.running import Gateway, gateway
from data.files import atomic_path
from data.progress import track
from data.provenance import hardware, versions
from data.synthetic.drawing import draw, plan
from serving.gateway.access import Role
from serving.gateway.access import create as make_token
from serving.gateway.blobs import keep
from serving.gateway.settings import Settings
from serving.gateway.store import unscoped
from serving.gateway.store.repositories import images, predictions, queue
from serving.gateway.store.repositories.predictions import Origin

OUT = Path(__file__).parent / "results" / "review.csv"
TASK = "skin_lesion"
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
PICTURES = 40
AT_ONCE = 500
TARGETS_MS = {"first paint": 1000.0, "list visible": 1000.0, "label saved": 100.0}
_ORIGIN = Origin(TASK, TASK, "1", "sha256:" + "b" * 64, "fp32", "sha256:" + "d" * 64, "sha256:" + "c" * 64)

#: Notes when the list stands in the page, a label was saved, and the next photograph is shown.
_WATCH = """
const note = (name) => (window.seen ??= {})[name] ??= performance.now();
new MutationObserver(() => {
  if (document.querySelectorAll(".list a").length) note("list");
  if (document.getElementById("say")?.textContent.startsWith("Saved")) note("saved");
  const shown = document.querySelector(".case");
  const other = shown && shown.dataset.case !== window.before;
  if (other && shown.querySelector(".stage img:not([hidden])")) note("next");
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  window.before = document.querySelector(".case")?.dataset.case;
  document.getElementById("say").textContent = "";
  window.seen = { key: performance.now() };
}, { capture: true });
"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]"


def main() -> int:
    """Measure, print, write, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20, help="how often the page is opened")
    parser.add_argument("--labels", type=int, default=100, help="how many labels are saved")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("There is no chromium on this machine (Debian's package of that name).")
    # No model is asked: nothing listens where one would be.
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(Path(folder), "http://127.0.0.1:9", TASK, systems="s0,review") as running,
    ):
        token = fill(running, given.cases)
        found = measure(running.url, token, chromium, rounds=given.rounds, labels=given.labels)
    rows = [_row(step, given.cases, took) for step, took in found.items()]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    _write(given.out, rows)
    return 1 if any(row["met"] is False for row in rows) else 0


def fill(running: Gateway, cases: int) -> str:
    """Let that many cases wait, of :data:`PICTURES` photographs; a reader's token."""
    settings = Settings.from_env(running.environment)
    store, blobs = settings.open_store(), settings.open_blobs()
    pictures = [draw(one) for one in plan("lesion", PICTURES, size=512)]
    try:
        tenant = unscoped.ensure_tenant(store, settings.tenant).id
        for start in track(range(0, cases, AT_ONCE), "Filling the queue", -(-cases // AT_ONCE)):
            # A photograph waits once, so each is another file: bytes behind a JPEG's end are nobody's.
            kept = [
                keep(blobs, tenant, pictures[number % PICTURES] + str(number).encode(), "image/jpeg")
                for number in range(start, min(start + AT_ONCE, cases))
            ]
            with store.write(tenant, "benchmark") as scope:
                for number in range(start, min(start + AT_ONCE, cases)):
                    image = images.add(
                        scope,
                        kept[number - start],
                        media_type="image/jpeg",
                        width=512,
                        height=512,
                        system="s0",
                        owner="benchmark",
                        case_key=f"case-{number}",
                    )
                    said = predictions.add(
                        scope, _ORIGIN, image_id=image.id, verdict="gradable", answer=_answer(number)
                    )
                    queue.enter(
                        scope,
                        task=TASK,
                        image_id=image.id,
                        prediction_id=said.id,
                        reasons=["uncertain"] if number % 3 else ["disagreement", "audit"],
                        priority=round(1 + (number % 997) / 997, 6),
                    )
        with store.write(tenant, "benchmark") as scope:
            return make_token(scope, role=Role.REVIEWER, name="reader", subject="Dr. Ada").text
    finally:
        store.close()


def _answer(number: int) -> dict[str, Any]:
    sure = 0.3 + (number % 50) / 100
    label = CLASSES[number % len(CLASSES)]
    rest = (1 - sure) / (len(CLASSES) - 1)
    probabilities = {name: sure if name == label else rest for name in CLASSES}
    head = {
        "label": label,
        "confidence": sure,
        "probabilities": probabilities,
        "uncertain": True,
        "set": [label],
    }
    return {"heads": {"diagnosis": head}}


def measure(url: str, token: str, chromium: str, *, rounds: int, labels: int) -> dict[str, list[float]]:
    """Milliseconds of each step."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {
        "first paint": [],
        "list visible": [],
        "label saved": [],
        "next case": [],
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(f"{url}/review/")
        page.locator("#token").fill(token)
        page.keyboard.press("Enter")
        page.locator(".list a").first.wait_for()
        cookies = context.cookies()
        for _ in range(rounds):
            # A context of its own: nothing of the page is in its cache.
            fresh = browser.new_context(viewport={"width": 1280, "height": 900})
            fresh.add_cookies(cookies)
            tab = fresh.new_page()
            tab.add_init_script(_WATCH)
            tab.goto(f"{url}/review/")
            tab.wait_for_function(f"() => window.seen?.list && {_PAINTED}")
            paint, shown = tab.evaluate(f"() => [{_PAINTED}.startTime, window.seen.list]")
            found["first paint"].append(paint)
            found["list visible"].append(shown)
            fresh.close()
        page.add_init_script(_WATCH)
        page.reload()
        page.locator(".list a").first.wait_for()
        page.keyboard.press("Enter")
        page.wait_for_function("() => window.seen?.next")
        for number in range(labels):
            page.keyboard.press(str(1 + number % len(CLASSES)))
            page.keyboard.press("Enter")
            page.wait_for_function("() => window.seen?.saved && window.seen.next && window.seen.key")
            seen = page.evaluate("() => window.seen")
            found["label saved"].append(seen["saved"] - seen["key"])
            found["next case"].append(seen["next"] - seen["key"])
        browser.close()
    return found


def _row(step: str, cases: int, took: Sequence[float]) -> dict[str, Any]:
    p95 = statistics.quantiles(took, n=20, method="inclusive")[-1]
    target = TARGETS_MS.get(step)
    return {
        "step": step, "cases": cases, "rounds": len(took), "median_ms": round(statistics.median(took), 1),
        "p95_ms": round(p95, 1), "worst_ms": round(max(took), 1), "target_ms": target or "",
        "met": "" if target is None else p95 < target,
    }  # fmt: skip


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    machine = {**hardware(), **versions("fastapi", "starlette", "uvicorn", "sqlalchemy", "playwright")}
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
