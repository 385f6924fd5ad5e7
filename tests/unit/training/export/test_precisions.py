from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training.export.judge as judge
import training.export.precisions as precisions
from data.dataset import Dataset
from data.errors import BundleError, ParityError
from serving.core.bundle import Bundle
from serving.core.runtimes import open_runtime, warm_up
from training.calibrate import HeadCalibration
from training.export import package
from training.model import Classifier
from training.task import Task, task_from_dict


def with_export(task: Task, **export: Any) -> Task:
    body = task.to_dict()
    body["export"] = {**body["export"], **export}
    return task_from_dict(body)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
) -> Bundle:
    # The pictures say little about the grade, so that the AUC of a random network moves freely.
    wanted = with_export(task, precisions=["fp32", "int8"], calibration_images=16, loss=0.2)
    out = tmp_path_factory.mktemp("precisions") / "bundle"
    return package(model, wanted, dataset, {}, calibration, out, served=False)


def test_the_card_says_what_each_precision_costs(made: Bundle) -> None:
    int8 = made.card.precisions["int8"]
    assert (int8.file, int8.format, int8.approved) == ("model.int8.onnx", "onnx", True)
    assert int8.metric["bytes"] == made.card.files["model.int8.onnx"].bytes
    assert int8.metric["metric"] == "auc"
    assert int8.metric["val"]["loss"] <= int8.metric["allowed"] == 0.2
    assert set(int8.metric["test"]["heads"]) == {"grade"}
    assert int8.metric["latency_ms"]["runtime"].startswith("onnxruntime ")
    assert 0 <= int8.metric["cam_difference"] < 0.5
    assert 0.02 <= int8.tolerance <= 0.5
    assert made.card.precisions["fp32"].tolerance == 1e-3
    assert "precisions_left_out" not in made.card.extra


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_approved_precision_is_served_with_its_map(made: Bundle, runtime: str) -> None:
    opened = open_runtime(made, "int8", 1, runtime=runtime)
    exact = open_runtime(made, "fp32", 1)
    images = made.arrays("golden.npz")["images"]
    one, other = (item.run(images, ("logits", "cam", "embedding")) for item in (exact, opened))
    for name in one:
        assert np.corrcoef(one[name].ravel(), other[name].ravel())[0, 1] > 0.9
    assert warm_up(opened, made).max_difference <= made.card.precisions["int8"].tolerance


def test_one_that_loses_too_much_is_there_but_not_served(
    out: Path,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = judge.judge_logits

    def worse(reference: Any, given: Any, *args: Any) -> dict[str, Any]:
        found = real(reference, given, *args)
        return found if given is reference else {**found, "loss": 0.5}

    monkeypatch.setattr(judge, "judge_logits", worse)
    wanted = with_export(task, precisions=["fp32", "int8"], calibration_images=8)
    made = package(model, wanted, dataset, {}, calibration, out, served=False)
    assert not made.card.precisions["int8"].approved
    assert made.card.precisions["int8"].metric["reason"].startswith("It loses 0.5000 of auc")
    with pytest.raises(BundleError, match=r"no approved precision 'int8'. It loses 0.5"):
        open_runtime(made, "int8")
    assert open_runtime(made).precision == "fp32"


def test_one_that_cannot_be_built_is_left_out_with_its_reason(
    out: Path,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise ParityError("No such operation.")

    monkeypatch.setattr(precisions, "quantise_onnx", fails)
    monkeypatch.setattr(precisions, "export_tflite", fails)
    wanted = with_export(task, precisions=["fp32", "int8", "tflite"], calibration_images=8)
    made = package(model, wanted, dataset, {}, calibration, out, served=False)
    assert set(made.card.precisions) == {"fp32"}
    assert made.card.extra["precisions_left_out"] == {
        "int8": "No such operation.",
        "tflite": "No such operation.",
    }


@pytest.mark.slow
def test_all_of_them_from_one_export(
    out: Path, model: Classifier, task: Task, dataset: Dataset, calibration: dict[str, HeadCalibration]
) -> None:
    names = ["fp32", "bf16", "int8", "tflite", "tflite_int8"]
    wanted = with_export(task, precisions=names, calibration_images=16, loss=0.5)
    made = package(model, wanted, dataset, {}, calibration, out, served=False)
    assert set(made.card.precisions) | set(made.card.extra.get("precisions_left_out", {})) == set(names)
    for name, item in made.card.precisions.items():
        assert item.approved
        opened = open_runtime(made, name, 1)
        assert opened.precision == name
        assert set(opened.run(made.arrays("golden.npz")["images"], tuple(made.card.outputs))) == set(
            made.card.outputs
        )
