"""The loop from labels to a challenger, in real processes: labels over HTTP, a kill, the gate, the status.

One home for the whole file: later tests find what earlier ones made, and run in this order.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from data.dataset import Dataset, Head
from data.paths import Home
from data.sources import open_source
from pipelines.result import SCHEMA
from serving.core.bundle import Bundle
from serving.core.pointer import read_pointer
from tests.anomaly_bundles import file, surface, with_blot
from tests.anomaly_sets import write_parts
from tests.review_exports import Exported

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

GRADE = Head("grade", ("no_dr", "mild", "moderate", "severe", "proliferative"))
TINY = [
    "--backbone=test_resnet",
    "--set=weights=none",
    "--set=input_size=64",
    "--set=train.epochs=1",
    "--set=train.batch_size=16",
    "--set=gate.floors={}",
    "--set=gate.margin.loss=1",
]
PARTS = [
    "--backbone=test_resnet",
    "--set=weights=none",
    "--set=input_size=64",
    "--set=patchcore.layers=[1, 2]",
    "--set=patchcore.stride=4",
    "--set=patchcore.blur_sigma=1",
    "--set=patchcore.score={kind: top_mean, top: 3}",
    "--set=gate.margin.loss=1",
]
TOKEN = "a-reviewers-token"


class Place:
    """A home, and ``retiderm`` in it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "var")
        self.out = root / "out.json"
        self.environment = {
            **os.environ,
            "RETIDERM_HOME": str(self.home.root),
            "RETIDERM_REVIEW_TOKEN": TOKEN,
            "OMP_NUM_THREADS": "1",
        }

    def command(self, *line: str) -> list[str]:
        return [sys.executable, "-m", "pipelines.cli", *line]

    def call(self, *line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*line),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )

    def run(self, *line: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        self.out.unlink(missing_ok=True)
        done = self.call(*line, "--json", str(self.out))
        value: dict[str, Any] = json.loads(self.out.read_text()) if self.out.is_file() else {}
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(value)
        return done, value

    def status(self, *line: str) -> dict[str, Any]:
        (told,) = json.loads(self.call("loop", "status", *line, "--json").stdout)
        return dict(told)


def statuses(value: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in value["steps"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("loop"))
    done, value = made.run("run", "dr_grading", "--data", "synthetic-fundus?n=150&size=128&seed=1", *TINY)
    assert done.returncode == 0, done.stderr
    assert value["promoted"]
    return made


@pytest.fixture(scope="module")
def labelled() -> Exported:
    """Two readers on 30 drawn photographs; a third decides where they differ."""
    made = Exported(task="dr_grading")
    source = open_source("synthetic-fundus?n=30&size=128&seed=7", task="dr_grading", heads=[GRADE])
    for number, sample in enumerate(source.samples([GRADE])):
        value = sample.labels["grade"]
        truth = GRADE.classes[value] if isinstance(value, int) else str(value)
        other = truth if number % 5 else GRADE.classes[(GRADE.classes.index(truth) + 1) % 5]
        data, group = sample.read(), f"patient-{sample.group}"
        made.label(data, truth, reader="anna", group=group)
        made.label(data, other, reader="ben", group=group)
        if other != truth:
            made.label(data, truth, reader="chief", adjudicated=True, group=group)
    return made


@pytest.fixture(scope="module")
def gateway(labelled: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The route that the gateway will have, over real HTTP."""
    folder = labelled.write(tmp_path_factory.mktemp("gateway") / "export")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    body = stream.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.startswith("/v1/review/labels/export?task=dr_grading")
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            self.send_response(200 if known and allowed else 401)
            self.send_header("Content-Length", str(len(body) if known and allowed else 0))
            self.end_headers()
            if known and allowed:
                self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_before_it_is_time_it_says_what_it_waits_for(place: Place, gateway: str) -> None:
    told = place.status("dr_grading", "--labels", gateway)
    assert told["due"] == {
        "due": False,
        "sentence": "waits for labels (30 of 50 labels)",
        "gathered": 30,
        "needed": 50,
    }
    assert (told["champion"]["version"], told["challenger"], told["retrained"]) == ("1", None, None)
    done = place.call("loop", "retrain", "dr_grading", "--labels", gateway, "--when-due")
    assert (done.returncode, done.stdout) == (0, "")
    assert "waits for labels (30 of 50 labels)" in done.stderr


def test_from_labels_to_a_challenger_after_a_kill(place: Place, gateway: str, tmp_path: Path) -> None:
    line = ["loop", "retrain", "dr_grading", "--labels", gateway, "--warm-start", *TINY]
    line += ["--when-due", "--needed", "30"]
    with (tmp_path / "seen").open("wb") as stream:
        process = subprocess.Popen(place.command(*line), env=place.environment, stdout=stream, stderr=stream)
    until = time.monotonic() + 500
    while "▸  5/13 train" not in (tmp_path / "seen").read_text():
        assert process.poll() is None, (tmp_path / "seen").read_text()
        assert time.monotonic() < until, (tmp_path / "seen").read_text()
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive, "the step's process outlived its runner"
    assert place.status("dr_grading", "--labels", gateway)["due"]["gathered"] == 30  # not lost

    done, value = place.run(*line)
    assert done.returncode == 0, done.stderr
    found = statuses(value)
    assert (found["ingest"], found["validate"]) == ("cached", "cached")
    assert (found["labels"], found["start"], found["train"], found["keep"]) == ("done",) * 4
    assert (value["status"], value["promoted"], value["version"]) == ("completed", False, "2")
    assert value["gate"]["line"] == "same test set"
    assert value["source"] == f"review:{gateway}"
    assert "anna and ben agree on 24 of 30 images, kappa" in done.stdout
    pointer = read_pointer(place.home.serving, "dr_grading")
    assert pointer is not None
    assert pointer.version == "1"


def test_the_version_names_where_its_labels_come_from(place: Place, labelled: Exported) -> None:
    (kept,) = (place.home.root / "loop" / "dr_grading" / "datasets").iterdir()
    dataset = Dataset.open(kept)
    dataset.verify()
    (review,) = dataset.info["review"]
    assert review["readers"] == ["anna", "ben", "chief"]
    assert {sha256 for case in review["cases"] for sha256 in case["sha256"]} == set(labelled.images)
    shown = place.call("models", "show", "dr_grading", "2", "--json")
    told = json.loads(shown.stdout)
    assert told["dataset_digest"] == dataset.digest
    assert "challenger" in told["aliases"]
    card = Bundle.open(Path(told["bundle"])).card
    assert card.dataset.source.endswith("+review")
    assert card.weights.source.startswith("dr_grading-1-")  # it began with the champion's


def test_afterwards_it_waits_for_a_person_and_for_new_labels(place: Place, gateway: str) -> None:
    told = place.status("dr_grading", "--labels", gateway)
    assert (told["champion"]["version"], told["challenger"]["version"]) == ("1", "2")
    assert told["retrained"]["version"] == "2"
    assert told["due"]["gathered"] == 0
    assert told["waits_for"][0] == "a person's decision on version 2, the challenger"
    again = place.call("loop", "retrain", "dr_grading", "--labels", gateway, *TINY)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    assert "dr_grading: nothing new" in again.stderr
    done = place.call("models", "promote", "dr_grading", "2")
    assert done.returncode == 0, done.stderr
    assert place.status("dr_grading")["champion"]["version"] == "2"


def test_labels_that_are_wrong_stop_the_first_step_and_are_named(
    place: Place, labelled: Exported, tmp_path: Path
) -> None:
    wrong = Exported(task="dr_grading", lines=[dict(line) for line in labelled.lines], images=labelled.images)
    wrong.lines[3]["value"] = "terrible"
    folder = wrong.write(tmp_path / "export")
    done, value = place.run("loop", "retrain", "dr_grading", "--labels", str(folder), *TINY)
    assert done.returncode == 1
    assert (value["status"], value["error"]["step"], value["error"]["code"]) == ("failed", "labels", "source")
    assert "line 4: grade=terrible" in done.stderr


def test_ok_and_not_ok_parts_go_round_the_same_loop(place: Place, tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "parts", train=12, ok=8, ng=8)
    done, value = place.run("run", "anomaly", "--data", f"mvtec:{parts}?licence=CC0-1.0", *PARTS)
    assert done.returncode == 0, done.stderr
    before = value
    made = Exported(task="anomaly")
    for number in range(10):
        made.label(file(surface(96, 5000 + number)), "ok", head="status")
    for number in range(3):
        made.label(file(with_blot(surface(96, 6000 + number), 0.5, 0.5)), "ng", head="status")
    folder = made.write(tmp_path / "labels")
    done, value = place.run("loop", "retrain", "anomaly", "--labels", str(folder), *PARTS)
    assert done.returncode == 0, done.stderr
    assert (value["status"], value["promoted"]) == ("completed", False)
    assert value["test_digest"] == before["test_digest"]
    counts, were = value["counts"], before["counts"]
    assert counts["train"]["status"]["ng"] == 0
    assert counts["val"]["status"]["ng"] == were["val"]["status"]["ng"] + 3
    assert counts["train"]["status"]["ok"] > were["train"]["status"]["ok"]
    assert value["gate"]["line"] == "same test set"
