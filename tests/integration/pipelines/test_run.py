"""``retiderm run`` from a source to a served model, on drawn images and a tiny network, and all its ends.

One home for the whole file, so that later tests find what earlier ones promoted: they run in this order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from data.paths import Home
from pipelines.classifier import NEVER_CACHED, STEPS
from pipelines.result import SCHEMA
from serving.core.bundle import Bundle
from serving.core.pointer import read_pointer

#: Each run trains, exports and serves, and there are two before the first test: a minute, and on a busy
#: machine many times that.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SOURCE = "synthetic-fundus?n=150&size=128&seed=1"
TINY = [
    "--backbone=test_resnet",
    "--set=weights=none",
    "--set=input_size=64",
    "--set=train.epochs=1",
    "--set=train.batch_size=16",
]
NO_FLOORS = ["--set=gate.floors={}"]


class Place:
    """A home, and ``retiderm run`` in it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.out = root.parent / "out.json"
        self.environment = {**os.environ, "RETIDERM_HOME": str(root), "OMP_NUM_THREADS": "2"}

    def command(self, source: str, *options: str) -> list[str]:
        line = [sys.executable, "-m", "pipelines.cli", "run", "dr_grading", "--data", source]
        return [*line, "--json", str(self.out), *options]

    def run(self, source: str, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        self.out.unlink(missing_ok=True)
        done = subprocess.run(
            self.command(source, *options),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        return done, self.result() if self.out.is_file() else {}

    def result(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out.read_text())
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(value)
        return value

    def champion(self) -> str | None:
        pointer = read_pointer(self.home.serving, "dr_grading")
        return pointer.version if pointer else None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("run") / "var")


Ran = tuple[subprocess.CompletedProcess[str], dict[str, Any]]


@pytest.fixture(scope="module")
def refused(place: Place) -> Ran:
    return place.run(SOURCE, *TINY, "--set=gate.floors={auc: 0.999}")


@pytest.fixture(scope="module")
def accepted(place: Place, refused: Ran) -> Ran:
    return place.run(SOURCE, *TINY, *NO_FLOORS)


def statuses(value: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in value["steps"]}


def test_a_refusal_is_a_result(place: Place, refused: Ran) -> None:
    done, value = refused
    assert done.returncode == 0, done.stderr
    assert (value["status"], value["promoted"], value["version"]) == ("refused", False, "1")
    assert value["gate"]["decision"] == "refuse"
    assert "must be at least 0.999" in value["gate"]["reasons"][0]
    assert list(statuses(value).values()) == ["done"] * 8 + ["skipped"] * 2
    assert all(step["seconds"] > 0 for step in value["steps"][:8])
    assert value["metrics"]["grade"]["n"] > 20
    assert value["synthetic"] is True
    assert value["backbone"] == "test_resnet"
    assert "refused: dr_grading version 1" in done.stdout
    assert read_pointer(place.home.serving, "dr_grading") is None


def test_it_tells_each_step_as_it_goes(refused: Ran) -> None:
    done, _ = refused
    for number, name in enumerate(STEPS[:8], 1):
        assert f"✓ {number:>2}/10 {name}" in done.stderr
    assert "epoch 1/1  loss" in done.stderr
    assert "KFP Executor" not in done.stderr
    assert "synthetic images: these figures say nothing about patients" in done.stdout


def test_another_floor_is_no_new_training_and_the_accepted_serves(
    place: Place, refused: Ran, accepted: Ran
) -> None:
    done, value = accepted
    assert done.returncode == 0, done.stderr
    found = statuses(value)
    assert [found[name] for name in ("ingest", "validate", "train", "evaluate")] == ["cached"] * 4
    assert (value["status"], value["promoted"], value["version"]) == ("completed", True, "2")
    assert value["metrics"] == refused[1]["metrics"]
    pointer = read_pointer(place.home.serving, "dr_grading")
    assert pointer is not None
    assert pointer.digest == value["bundle_digest"]
    card = Bundle.open(pointer.folder(place.home.serving)).card
    assert (card.dataset.digest, card.dataset.test_digest) == (value["dataset_digest"], value["test_digest"])
    assert card.dataset.synthetic
    assert "promoted: dr_grading version 2 is champion" in done.stdout


def test_the_same_again_comes_from_the_cache(place: Place, accepted: Ran) -> None:
    done, value = place.run(SOURCE, *TINY, *NO_FLOORS)
    assert done.returncode == 0, done.stderr
    assert {step["name"] for step in value["steps"] if step["cached"]} == set(STEPS) - NEVER_CACHED
    before = accepted[1]
    for key in ("version", "bundle_digest", "dataset_digest", "test_digest", "metrics", "calibration"):
        assert value[key] == before[key], key
    assert value["promoted"]


def test_another_recipe_keeps_the_dataset_and_no_promote_what_serves(place: Place, accepted: Ran) -> None:
    done, value = place.run(SOURCE, *TINY, "--set=train.lr=0.002", *NO_FLOORS, "--no-promote")
    assert done.returncode == 0, done.stderr
    found = statuses(value)
    assert (found["ingest"], found["train"]) == ("cached", "done")
    assert not value["promoted"]
    assert place.champion() == "2"


def test_a_failed_check_names_the_rows(place: Place, tmp_path: Path) -> None:
    from data.dataset import Head
    from data.sources import open_source

    head = Head("grade", ("no_dr", "mild", "moderate", "severe", "proliferative"))
    source = open_source("synthetic-fundus?n=40&size=160", task="dr_grading", heads=[head])
    for number, sample in enumerate(source.samples([head])):
        folder = tmp_path / str(sample.labels["grade"])
        folder.mkdir(exist_ok=True)
        content = sample.read()
        (folder / f"{number:03}.jpg").write_bytes(content[: len(content) // 2] if number == 7 else content)
    done, value = place.run(f"folders:{tmp_path}", *TINY)
    assert done.returncode == 1
    assert value["status"] == "failed"
    assert value["error"]["step"] == "validate"
    assert value["error"]["code"] == "check_failed"
    assert any("007.jpg" in row for row in value["error"]["rows"])
    assert "error: step validate: The data check failed" in done.stderr
    assert "007.jpg" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["medmnist:{}/broken.npz", "folders:{}/nowhere", "nosuch:{}"])
def test_a_source_that_is_none_fails_the_first_step(place: Place, tmp_path: Path, source: str) -> None:
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    done, value = place.run(source.format(tmp_path))
    assert done.returncode == 1
    assert (value["status"], value["error"]["step"], value["error"]["code"]) == ("failed", "ingest", "source")
    assert done.stderr.startswith("error: step ingest: ")
    assert "hint: " in done.stderr


def test_an_error_in_training_is_the_real_one(place: Place) -> None:
    done, value = place.run(SOURCE, *TINY, "--backbone=resnet5000")
    assert done.returncode == 1
    assert (value["status"], value["error"]["step"], value["error"]["code"]) == ("failed", "train", "task")
    assert "error: step train: timm has no backbone 'resnet5000'." in done.stderr
    assert "hint: Near:" in done.stderr


LONG = [
    *TINY,
    "--set=train.epochs=40",
    "--set=train.early_stop_patience=0",
    "--seed=9",
    *NO_FLOORS,
    "--no-promote",
]


def start_training(place: Place, seen: Path) -> subprocess.Popen[bytes]:
    """A long run, given back when it has trained for a few epochs, of its own."""
    before = checkpoints(place)
    with seen.open("wb") as stream:
        process = subprocess.Popen(
            place.command(SOURCE, *LONG), env=place.environment, stdout=stream, stderr=stream
        )
    until = time.monotonic() + 500
    while checkpoints(place) <= before:
        assert process.poll() is None, seen.read_text()
        assert time.monotonic() < until, seen.read_text()
        time.sleep(0.1)
    return process


def checkpoints(place: Place) -> set[tuple[str, int]]:
    """Each that there is, with its time: an interrupted run leaves one, and the next writes it anew."""
    found = set()
    for path in (place.home.runs / "work").glob("*/checkpoint*"):
        with contextlib.suppress(FileNotFoundError):
            found.add((str(path), path.stat().st_mtime_ns))
    return found


def gone(children: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(children, timeout=120)
    return not alive


def test_ctrl_c_ends_every_process_and_says_so(place: Place, tmp_path: Path) -> None:
    place.out.unlink(missing_ok=True)
    process = start_training(place, tmp_path / "seen")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    assert "the same command goes on where it was" in (tmp_path / "seen").read_text()
    assert gone(children)
    value = place.result()
    assert value["status"] == "interrupted"
    assert value["error"]["step"] == "train"


def test_a_killed_run_goes_on_where_it_was(place: Place, tmp_path: Path) -> None:
    process = start_training(place, tmp_path / "seen")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert gone(children), "the step's process outlived its runner"
    done, value = place.run(SOURCE, *LONG)
    assert done.returncode == 0, done.stderr
    found = statuses(value)
    assert (found["ingest"], found["validate"], found["train"]) == ("cached", "cached", "done")
    assert "resum" in done.stderr.lower()
    assert not list((place.home.runs / "work").glob("*/checkpoint*"))
