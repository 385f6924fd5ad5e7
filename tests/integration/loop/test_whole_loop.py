"""The whole loop with real processes: from a first model over a reader's labels to the next, and back.

Everything is done as people do it: commands, an app's requests, a Chromium. docs/loop.md walks the same way.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from data.paths import Home
from tests.browser.conftest import Visit, _visit
from tests.browser.conftest import browser as browser
from tests.gateway_live import LESIONS
from tests.integration.serving.harness import PATIENCE_S, free_port

# It trains twice and waits for a reader in a browser: four minutes on two quiet cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TASK = "skin_lesion"
#: Of each class: images of the first data set, and of the cases that come later. Each shows another lesion.
TRAINED, SENT = 24, 5
BOTH = [
    "--set=train.batch_size=16",
    "--set=export.precisions=[fp32]",
    "--set=gate.floors={}",
    "--set=gate.margin.loss=0.02",
]
#: The first network has learned next to nothing, so that the second is better for certain.
POOR = [
    *BOTH,
    "--set=weights=none",
    "--set=train.epochs=1",
    "--set=train.lr=1e-6",
    "--set=train.backbone_lr=1e-6",
]
BETTER = [*BOTH, "--set=train.epochs=4", "--set=train.ema_decay=0", "--set=train.mixup_alpha=0"]


@dataclass(frozen=True)
class Lesions:
    """A part of HAM10000 as a source, and other photographs of it with what they show."""

    folder: Path
    cases: tuple[bytes, ...]
    truth: dict[str, str]

    @classmethod
    def cut(cls, source: Path, folder: Path) -> Lesions:
        """A few of each class, of one photograph a lesion."""
        with (source / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        by_class: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
        for row in rows:
            by_class[row["dx"]].setdefault(row["lesion_id"], row)
        (folder / "images").mkdir(parents=True)
        cases, truth, kept = list[bytes](), dict[str, str](), list[dict[str, str]]()
        for label in LESIONS:
            chosen = list(by_class[label].values())[: TRAINED + SENT]
            assert len(chosen) == TRAINED + SENT
            kept += chosen[:TRAINED]
            for row in chosen[TRAINED:]:
                cases.append((source / "images" / f"{row['image_id']}.jpg").read_bytes())
                truth[hashlib.sha256(cases[-1]).hexdigest()] = label
        for row in kept:
            shutil.copy(source / "images" / f"{row['image_id']}.jpg", folder / "images")
        with (folder / "HAM10000_metadata.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)
        return cls(folder, tuple(cases), truth)


@dataclass
class Place:
    """A home, the commands in it, and what serves from it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    gateway: str = ""

    def __post_init__(self) -> None:
        self.environment = {
            **os.environ,
            "RETIDERM_HOME": str(self.root / "var"),
            "RETIDERM_WHO": "ops",
            # S0 with the one task; photographs of 200 × 150 are never sharp by its threshold of old.
            "GATEWAY_SYSTEMS": "s0,v1,review",
            "CHECK_IMAGE_TASKS": TASK,
            "BLUR_THRESHOLD": "0",
            # Every image is audited, so that all that are sent are read.
            "GATEWAY_QUEUE_AUDIT": "1",
        }

    @property
    def home(self) -> Home:
        return Home(self.root / "var")

    def call(self, *line: str, status: int = 0) -> str:
        """``retiderm …``, and what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *line],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == status, f"{' '.join(line)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def read(self, *line: str) -> Any:
        """The same with ``--json``."""
        return json.loads(self.call(*line, "--json"))

    def run(self, *line: str) -> dict[str, Any]:
        """A pipeline's result."""
        out = self.root / "out.json"
        out.unlink(missing_ok=True)
        self.call(*line, "--json", str(out))
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    def waits_for(self, *line: str) -> dict[str, Any]:
        (told,) = self.read("loop", "status", TASK, *line)
        return dict(told)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """``retiderm serve``, until the end."""
        ready, log = self.root / "ready.json", self.root / "serve.log"
        ports = (free_port() for _ in range(4))
        names = ("--port", "--grpc-port", "--predictor-port", "--gateway-port")
        line = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "serve", *line, "--ready-file", str(ready)],
                env=self.environment, stdout=stream, stderr=stream,
            )  # fmt: skip
        try:
            until(lambda: ready.exists() or process.poll() is not None)
            assert process.poll() is None, log.read_text()[-3000:]
            self.gateway = json.loads(ready.read_text())["gateway"]
            yield
        finally:
            process.terminate()
            process.wait(timeout=3 * PATIENCE_S)
        assert process.returncode == 0, log.read_text()[-3000:]

    def client(self, token: str) -> httpx.Client:
        headers = {"x-api-key": token, "authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.gateway, headers=headers, timeout=PATIENCE_S, trust_env=False)


def until(condition: Callable[[], Any], timeout_s: float = 180) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.5)
    return found


def check(app: httpx.Client, data: bytes, **query: str) -> httpx.Response:
    return app.post("/check-image", content=data, params=query, headers={"content-type": "image/jpeg"})


def answers_as(app: httpx.Client, data: bytes) -> str:
    """The version that answers."""
    headers = {"content-type": "image/jpeg"}
    answer = app.post("/v1/predictions", content=data, params={"task": TASK}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["model"]["version"])


@contextlib.contextmanager
def asking(place: Place, token: str, lesions: Lesions) -> Iterator[list[int]]:
    """An app that goes on asking meanwhile: the status of each answer, 0 where there was none.

    Four times a second at most: with what :func:`until` asks that stays below a token's requests a minute.
    """
    stop, found = threading.Event(), list[int]()

    def keep_asking() -> None:
        with place.client(token) as app:
            while not stop.wait(0.25):
                data = lesions.cases[len(found) % len(lesions.cases)]
                try:
                    found.append(check(app, data).status_code)
                except httpx.HTTPError:
                    found.append(0)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
    assert set(found) == {200}, Counter(found)


def read_all(visit: Visit, token: str, lesions: Lesions, count: int) -> None:
    """A reader by keyboard alone: signs in, opens the queue's first case, says what each one shows."""
    page = visit.page
    visit.open()
    page.locator("#token").wait_for()
    page.keyboard.type(token)
    visit.press("Enter")
    page.locator(".list a").first.wait_for()
    visit.press("Enter")
    case = visit.case()
    for number in range(count):
        # Who reads knows the lesion by its picture.
        seen = visit.context.request.get(f"{visit.url}/review/api/entries/{case}/image").body()
        truth = lesions.truth[hashlib.sha256(seen).hexdigest()]
        visit.press(str(LESIONS.index(truth) + 1))
        if number < count - 1:
            case = visit.after(lambda: visit.press("Enter"), case)
        else:
            visit.press("Enter")
            visit.told("That was the last one here.")


def decide(visit: Visit, label: str, why: str, then: str) -> None:
    """Press a button of the page of models, say why, and wait until another one is there."""
    page = visit.page
    page.get_by_role("button", name=label).click(timeout=180_000)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill(why)
    dialog.get_by_role("button", name=label).click()
    page.get_by_role("button", name=then).wait_for(timeout=180_000)


def test_the_whole_loop(shared_data: Path, browser: Browser, tmp_path: Path) -> None:
    lesions = Lesions.cut(shared_data / "ham10000_200x150", tmp_path / "ham")
    place = Place(tmp_path)

    # A first model, and a poor one. Without a champion the floors decide; there are none here.
    first = place.run("run", TASK, "--data", f"ham10000:{lesions.folder}", *POOR)
    assert (first["status"], first["promoted"], first["version"]) == ("completed", True, "1")

    app_token = place.call("token", "create", "camera-app").strip()
    reader_token = place.call("token", "create", "eve", "--role", "reviewer").strip()
    place.environment["RETIDERM_REVIEW_TOKEN"] = reader_token
    with place.serving(), place.client(app_token) as app, place.client(reader_token) as reader:
        labels = ("--labels", place.gateway)

        # Cases arrive. What the quality gate refuses never takes a reader's time.
        statuses = Counter[str]()
        for number, data in enumerate(lesions.cases):
            answer = check(app, data, case_id=f"case-{number}")
            assert answer.status_code == 200, answer.text
            statuses[answer.json()["status"]] += 1
        waiting = reader.get("/review/api/queue").json()["counts"][TASK]["waiting"]
        assert waiting == len(lesions.cases) - statuses["fail"]
        assert waiting >= len(lesions.cases) * 0.8
        needed = ("--needed", str(waiting))
        told = place.waits_for(*labels, *needed)
        assert told["champion"]["version"] == "1"
        assert told["waits_for"] == [f"labels (0 of {waiting} labels)"]

        # A reader labels them all in a browser, by keyboard.
        visit = _visit(browser, place.gateway)
        read_all(visit, reader_token, lesions, waiting)
        counts = reader.get("/review/api/queue").json()["counts"][TASK]
        assert counts == {"done": waiting}
        exported = reader.get("/v1/review/labels/export", params={"task": TASK})
        assert exported.status_code == 200
        assert exported.headers["content-type"] == "application/zip"
        due = place.waits_for(*labels, *needed)["due"]
        assert (due["due"], due["gathered"]) == (True, waiting)

        # The next version of the data set, and of the model, which the gate holds against the champion.
        second = place.run("loop", "retrain", TASK, *labels, "--when-due", *needed, *BETTER)
        assert (second["status"], second["version"], second["promoted"]) == ("completed", "2", False)
        assert second["gate"]["line"] == "same test set"
        assert second["gate"]["decision"] == "accept", second["gate"]
        assert second["test_digest"] == first["test_digest"]
        images = [
            sum(sum(part["diagnosis"].values()) for part in r["counts"].values()) for r in (first, second)
        ]
        assert images[1] == images[0] + waiting
        told = place.waits_for(*labels)
        assert told["waits_for"][0] == "a person's decision on version 2, the challenger"
        assert answers_as(app, lesions.cases[0]) == "1"

        # In the shadow first: nobody sees it, and its answers lie beside the champion's.
        place.call("models", "challenge", TASK, "2")
        with asking(place, app_token, lesions):
            until(lambda: reader.get(f"/review/api/models/{TASK}").json()["compared"]["images"] > 5)
        assert answers_as(app, lesions.cases[0]) == "1"

        # A person promotes it, on the page that shows all that; the app goes on asking.
        with asking(place, app_token, lesions) as asked:
            visit.show(f"#/models/{TASK}")
            expect(visit.page.locator("main")).to_contain_text("Both answered", timeout=180_000)
            decide(visit, "Promote version 2", "it sees what the first one did not", "Roll back to version 1")
            until(lambda: answers_as(app, lesions.cases[0]) == "2")
            before = len(asked)
            until(lambda: len(asked) > before + 5)
            assert place.waits_for(*labels)["champion"]["version"] == "2"

            # And takes it back by one click.
            decide(visit, "Roll back to version 1", "only to see that it can be", "Roll back to version 2")
            until(lambda: answers_as(app, lesions.cases[0]) == "1")
            before = len(asked)
            until(lambda: len(asked) > before + 5)
        assert not visit.problems
        visit.context.close()

        # What happened is written down, by whom and why, and nothing of it was altered.
        assert place.read("models", "verify") == {"ok": True, "findings": []}
        said = [
            (one["who"], one["why"]) for one in place.read("models", "history", TASK) if one["who"] == "eve"
        ]
        assert [why for _, why in said] == [
            "it sees what the first one did not",
            "only to see that it can be",
        ]
