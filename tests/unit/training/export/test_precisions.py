from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training.export.precisions as precisions
from data.dataset import Dataset
from data.errors import BundleError, ParityError
from serving.core.bundle import Bundle, HeadCard
from serving.core.runtimes import open_runtime, warm_up
from training.calibrate import HeadCalibration
from training.export import package
from training.export.precisions import judge_logits, verdict
from training.model import Classifier
from training.spec.export import ExportSpec
from training.task import Task, task_from_dict

HEADS = (HeadCard("one", ("a", "b")), HeadCard("two", ("x", "y", "z")))
SPEC = ExportSpec(("fp32", "int8"))


def logits(n: int = 200, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    labels = {"one": rng.integers(0, 2, n), "two": rng.integers(0, 3, n)}
    values = rng.normal(0, 1, (n, 5)).astype(np.float32)
    values[np.arange(n), labels["one"]] += 2
    values[np.arange(n), 2 + labels["two"]] += 2
    return values, labels


def test_the_same_logits_lose_nothing() -> None:
    values, labels = logits()
    found = judge_logits(values, values, labels, HEADS, "auc")
    assert (found["loss"], found["max_difference"], found["labels_changed"]) == (0, 0, 0)
    assert verdict(found, SPEC) is None


def test_the_worst_head_decides() -> None:
    values, labels = logits()
    worse = values.copy()
    worse[:, 2:] += np.random.default_rng(1).normal(0, 2, worse[:, 2:].shape)
    found = judge_logits(values, worse, labels, HEADS, "auc")
    assert found["heads"]["one"]["loss"] == 0
    assert found["loss"] == found["heads"]["two"]["loss"] > 0.05
    assert "loses 0." in str(verdict(found, SPEC))
    assert verdict(found, dataclasses.replace(SPEC, loss=0.5)) is None


@pytest.mark.parametrize("metric", ["auc", "accuracy", "balanced_accuracy", "kappa"])
def test_every_metric_of_a_task_can_judge(metric: str) -> None:
    values, labels = logits()
    found = judge_logits(values, -values, labels, HEADS, metric)
    assert found["loss"] > 0.3


def test_unlabelled_images_do_not_count_for_their_head() -> None:
    values, labels = logits()
    worse = values.copy()
    half = np.arange(len(values)) < 100
    worse[half, :2] *= -1
    labels["one"][half] = -1
    assert judge_logits(values, worse, labels, HEADS, "auc")["loss"] == 0


def test_without_labels_nothing_is_approved() -> None:
    values, labels = logits()
    nothing = {name: np.full_like(array, -1) for name, array in labels.items()}
    assert "can't be told" in str(verdict(judge_logits(values, values, nothing, HEADS, "auc"), SPEC))


def test_what_is_no_number_is_never_approved() -> None:
    values, labels = logits()
    broken = values.copy()
    broken[3, 1] = np.nan
    assert "no finite number" in str(verdict(judge_logits(values, broken, labels, HEADS, "auc"), SPEC))


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
    real = precisions.judge_logits

    def worse(reference: Any, given: Any, *args: Any) -> dict[str, Any]:
        found = real(reference, given, *args)
        return found if given is reference else {**found, "loss": 0.5}

    monkeypatch.setattr(precisions, "judge_logits", worse)
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
