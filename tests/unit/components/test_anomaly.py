"""The anomaly pipeline's steps one after the other, in this process: what each needs, makes and says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.anomaly.calibrate import calibrate
from components.anomaly.coreset import coreset
from components.anomaly.evaluate import evaluate
from components.anomaly.export import export
from components.anomaly.features import features
from components.deploy import deploy
from components.gate import gate
from components.promote import promote
from components.register import register
from data.dataset import Dataset
from data.errors import ParityError
from data.files import read_json
from data.paths import Home
from pipelines.request import task_arguments
from serving.core.bundle import Bundle
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.detector import open_detector
from serving.core.pointer import read_pointer
from tests.anomaly_sets import parts_dataset, small_task
from training.export import served
from training.registry.client import Registry


class Steps:
    """Artifacts in a folder, and the steps with what they are given in the pipeline."""

    def __init__(self, root: Path, dataset: Dataset) -> None:
        self.root, self.dataset = root, dataset
        self.told = task_arguments(small_task(**{"patchcore.coreset_rate": 0.1}))
        self.metrics: dict[str, float] = {}

    def at(self, name: str) -> Any:
        return SimpleNamespace(path=str(self.root / name), metadata={}, log_metric=self.metrics.__setitem__)

    @property
    def data(self) -> dict[str, Any]:
        folder = SimpleNamespace(path=str(self.dataset.root))
        return {"dataset": folder, "dataset_digest": self.dataset.digest}

    @property
    def memory(self) -> dict[str, Any]:
        return {"extractor": self.at("extractor"), "memory": self.at("memory")}

    def features(self) -> None:
        features.python_func(
            recipe=self.told["recipe"], **self.data, seed=0, code_digest="c",
            extractor=self.at("extractor"), patches=self.at("patches"),
        )  # fmt: skip

    def coreset(self) -> None:
        coreset.python_func(
            extractor=self.at("extractor"), patches=self.at("patches"),
            coreset_rate=self.told["coreset_rate"], seed=0, code_digest="c", memory=self.at("memory"),
        )  # fmt: skip

    def calibrate(self) -> None:
        calibrate.python_func(
            scoring=self.told["scoring"], **self.memory, **self.data, code_digest="c",
            calibration=self.at("calibration"), scores=self.at("scores"),
        )  # fmt: skip

    def evaluate(self) -> str:
        run: str = evaluate.python_func(
            scoring=self.told["scoring"], **self.memory, calibration=self.at("calibration"), **self.data,
            code_digest="c", predictions=self.at("predictions"), evaluation=self.at("evaluation"),
            pictures=self.at("pictures"),
        )  # fmt: skip
        return run

    def export(self, run: str) -> None:
        export.python_func(
            task=self.told["task"], **self.memory, calibration=self.at("calibration"),
            predictions=self.at("predictions"), evaluation=self.at("evaluation"),
            dataset=self.data["dataset"], mlflow_run_id=run, seed=0, code_digest="c",
            bundle=self.at("bundle"),
        )  # fmt: skip

    def register(self, run: str) -> str:
        version: str = register.python_func(
            bundle=self.at("bundle"), predictions=self.at("predictions"), evaluation=self.at("evaluation"),
            pictures=self.at("pictures"), mlflow_run_id=run,
        )  # fmt: skip
        return version

    def gate(self, version: str) -> str:
        decided: str = gate.python_func(
            task=self.told["task"], version=version, dataset=self.data["dataset"], promotes=True,
            decision=self.at("decision"),
        )  # fmt: skip
        return decided


@pytest.fixture
def steps(tmp_path: Path, home: Home) -> Steps:
    return Steps(tmp_path, parts_dataset(tmp_path, train=12, ok=6, ng=6))


@pytest.fixture
def server_in_process(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Stands in for the started server, which the integration test has: answers from the bundle's files.

    ``["off"]`` is added to its scores.
    """
    wrong = {"off": 0.0}

    @contextlib.contextmanager
    def started(bundle: Path) -> Iterator[str]:
        yield str(bundle)

    def post(url: str, task: str, files: list[bytes]) -> dict[str, Any]:
        detector = open_detector(Bundle.open(Path(url)))
        prepare = detector.scorer.extractor.preprocessing
        found = detector.score(np.stack([prepare(prepare.decode(data)) for data in files]))
        return {"outputs": [{"name": "anomaly.score", "data": (found.score + wrong["off"]).tolist()}]}

    monkeypatch.setattr(served, "started", started)
    monkeypatch.setattr(served, "post", post)
    return wrong


def test_from_patches_to_a_champion(
    steps: Steps, home: Home, server_in_process: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    steps.features()
    steps.coreset()
    steps.calibrate()
    run = steps.evaluate()

    server_in_process["off"] = 0.002
    with pytest.raises(ParityError, match="differ from the offline ones"):
        steps.export(run)
    assert not (steps.root / "bundle").exists()
    server_in_process["off"] = 0.0
    steps.export(run)
    version = steps.register(run)
    assert version == "1"
    assert steps.gate(version) == "promote"
    promote.python_func(task="anomaly", version=version, actor="me", receipt=steps.at("receipt"))
    assert deploy.python_func(task="anomaly", version=version) == "local"

    pointer = read_pointer(home.serving, "anomaly")
    assert pointer is not None
    bundle = Bundle.open(pointer.folder(home.serving))
    threshold = Calibration.from_dict(read_json(steps.root / "calibration")).threshold
    assert open_detector(bundle).threshold == threshold
    bundle.card.require_parity()
    assert bundle.card.run_id == run
    assert steps.metrics["test.auc"] > 0.9
    registry = Registry()
    found = registry.get("anomaly", version)
    assert found.metrics["status"]["pixel_auroc"]["value"] > 0.9
    assert "AUROC of pixels" in registry.page(found)
    said = capsys.readouterr().out
    assert "patches of" in said
    assert "cover radius" in said
    assert "auc 1.000" in said or "auc 0.9" in said

    # The same bundle again is the version that it is; the gate has its own champion before it.
    assert steps.register(run) == version
    assert steps.gate(version) == "promote"
