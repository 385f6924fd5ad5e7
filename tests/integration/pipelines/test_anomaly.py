"""``retiderm run anomaly`` from drawn parts to a served memory, on a tiny network.

One home for the whole file, so that later tests find what earlier ones promoted: they run in this order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from data.paths import Home
from pipelines.anomaly import NEVER_CACHED, STEPS
from pipelines.result import SCHEMA
from serving.core.bundle import Bundle
from serving.core.patchcore.detector import open_detector
from serving.core.pointer import read_pointer
from tests.anomaly_sets import write_parts

# tests/unit/components/test_anomaly.py runs the steps quickly, in one process.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TINY = [
    "--backbone=test_resnet",
    "--set=weights=none",
    "--set=input_size=64",
    "--set=patchcore.layers=[1, 2]",
    "--set=patchcore.stride=4",
    "--set=patchcore.blur_sigma=1",
    "--set=patchcore.score={kind: top_mean, top: 3}",
]


class Place:
    """A home with drawn parts, and ``retiderm run anomaly`` in it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "var")
        self.out = root / "out.json"
        self.source = f"mvtec:{write_parts(root / 'parts', train=12, ok=8, ng=8)}?licence=CC0-1.0"
        self.environment = {**os.environ, "RETIDERM_HOME": str(self.home.root), "OMP_NUM_THREADS": "1"}

    def command(self, *options: str) -> list[str]:
        line = [sys.executable, "-m", "pipelines.cli", "run", "anomaly", "--data", self.source]
        return [*line, "--json", str(self.out), *TINY, *options]

    def run(self, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        self.out.unlink(missing_ok=True)
        done = subprocess.run(
            self.command(*options),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        value: dict[str, Any] = json.loads(self.out.read_text()) if self.out.is_file() else {}
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(value)
        return done, value

    def serving(self) -> Bundle:
        pointer = read_pointer(self.home.serving, "anomaly")
        assert pointer is not None
        return Bundle.open(pointer.folder(self.home.serving))


Ran = tuple[subprocess.CompletedProcess[str], dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def accepted(place: Place) -> Ran:
    return place.run()


def statuses(value: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in value["steps"]}


def test_from_ok_images_to_a_served_memory(place: Place, accepted: Ran) -> None:
    done, value = accepted
    assert done.returncode == 0, done.stderr
    assert (value["kind"], value["status"], value["promoted"]) == ("anomaly", "completed", True)
    assert list(statuses(value).values()) == ["done"] * len(STEPS)
    head = value["metrics"]["status"]
    assert head["n"] == 16
    assert head["auc"]["value"] > 0.9
    assert head["pixel_auroc"]["value"] > 0.9
    assert head["nll"]["value"] is None
    assert value["calibration"] is None
    assert value["anomaly"]["memory"]["coreset"] > 0
    assert value["anomaly"]["parity"] <= 1e-3
    assert value["forbids"] == []
    assert "promoted: anomaly version 1 is champion" in done.stdout
    assert "pixel AUROC" in done.stdout
    for number, name in enumerate(STEPS, 1):
        assert f"✓ {number:>2}/{len(STEPS)} {name}" in done.stderr


def test_what_serves_decides_as_was_judged(place: Place, accepted: Ran) -> None:
    bundle = place.serving()
    assert bundle.digest == accepted[1]["bundle_digest"]
    bundle.card.require_parity()
    assert bundle.card.parity["features"]["images"] == 16
    assert bundle.card.parity["served"]["answered"] > 0
    detector = open_detector(bundle)
    assert detector.threshold == accepted[1]["anomaly"]["threshold"]
    assert bundle.card.run_id == accepted[1]["mlflow_run_id"]


def test_mlflow_has_settings_figures_and_pictures(place: Place, accepted: Ran) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.home.mlflow / 'mlflow.db'}")
    run = client.get_run(accepted[1]["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["patchcore.score.kind"] == "top_mean"
    assert run.data.metrics["test.auc"] == accepted[1]["metrics"]["status"]["auc"]["value"]
    assert run.data.metrics["memory.coreset"] == accepted[1]["anomaly"]["memory"]["coreset"]
    assert run.data.tags["test_digest"] == accepted[1]["test_digest"]
    assert {item.path for item in client.list_artifacts(run.info.run_id, "report")} >= {"report/roc.png"}


def test_another_score_rule_keeps_the_memory_and_is_compared_on_the_same_images(
    place: Place, accepted: Ran
) -> None:
    done, value = place.run("--set=patchcore.score={kind: percentile, percentile: 99}")
    assert done.returncode == 0, done.stderr
    found = statuses(value)
    assert [found[name] for name in ("ingest", "validate", "features", "coreset")] == ["cached"] * 4
    assert found["calibrate"] == "done"
    assert value["gate"]["line"] == "same test set"
    (comparison,) = value["gate"]["comparisons"]
    assert (comparison["metric"], comparison["images"]) == ("auc", 16)
    assert value["version"] == "2"


def test_the_same_again_comes_from_the_cache(place: Place, accepted: Ran) -> None:
    done, value = place.run()
    assert done.returncode == 0, done.stderr
    assert {step["name"] for step in value["steps"] if step["cached"]} == set(STEPS) - NEVER_CACHED
    for key in ("version", "bundle_digest", "metrics", "anomaly", "mlflow_run_id"):
        assert value[key] == accepted[1][key], key


def test_a_killed_run_goes_on_after_the_steps_that_were_done(place: Place, tmp_path: Path) -> None:
    changed = ["--set=patchcore.neighbourhood=1", "--no-promote"]
    with (tmp_path / "seen").open("wb") as stream:
        process = subprocess.Popen(
            place.command(*changed), env=place.environment, stdout=stream, stderr=stream
        )
    until = time.monotonic() + 500
    # The next step's beginning: kfp keeps a step's result a moment after the step says that it is done.
    while "▸  4/11" not in (tmp_path / "seen").read_text():
        assert process.poll() is None, (tmp_path / "seen").read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive, "the step's process outlived its runner"
    done, value = place.run(*changed)
    assert done.returncode == 0, done.stderr
    assert [step["status"] for step in value["steps"][:3]] == ["cached"] * 3
    assert value["status"] == "completed"


def test_a_backbone_that_gives_no_features_is_named(place: Place) -> None:
    done, value = place.run("--set=patchcore.layers=[17]")
    assert done.returncode == 1
    assert (value["status"], value["error"]["step"]) == ("failed", "features")
    assert "patchcore.layers" in value["error"]["message"]
