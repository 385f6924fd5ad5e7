from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.dataset import Dataset
from data.errors import DataError, ParityError
from serving.core.bundle import Bundle
from serving.core.runtimes import open_runtime
from training.calibrate import HeadCalibration
from training.export import package
from training.export.images import sample
from training.model import Classifier
from training.task import Task

METRICS = {"heads": {"grade": {"auc": {"value": 0.5, "low": 0.4, "high": 0.6}}}}


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
) -> Bundle:
    out = tmp_path_factory.mktemp("made") / "bundle"
    return package(model, task, dataset, METRICS, calibration, out, run_id="run-1", served=False)


def test_the_card_says_what_the_model_is(
    made: Bundle, task: Task, dataset: Dataset, calibration: dict[str, HeadCalibration]
) -> None:
    card = made.card
    assert (card.task, card.kind, card.backbone) == ("dr_grading", "classification", "test_resnet")
    assert card.heads == (calibration["grade"].card(task.heads[0]),)
    assert card.heads[0].titles[0] == "No DR"
    assert card.input.size == (64, 64)
    assert card.preprocessing_digest == task.preprocessing.digest
    assert card.dataset.digest == dataset.digest
    assert card.dataset.test_digest == dataset.test_digest
    assert card.dataset.counts == dataset.info["counts"]
    assert card.metrics == METRICS
    assert card.run_id == "run-1"
    assert card.weights.source == "none"
    assert card.limits == task.limits
    assert card.explanation.method == "closed-form"
    assert card.explanation.max_error is not None
    assert card.explanation.max_error < 1e-4
    assert list(card.precisions) == ["fp32"]


def test_parity_is_on_the_card_and_whole_only_when_served(made: Bundle) -> None:
    parity = made.card.parity
    assert parity["onnx"]["passed"]
    assert parity["onnx"]["images"] >= 10
    assert parity["onnx"]["max_difference"] < 1e-4
    assert parity["cam"]["passed"]
    with pytest.raises(ParityError, match="no proof of: served"):
        made.card.require_parity()


def test_the_bundle_runs_and_remembers(made: Bundle, dataset: Dataset) -> None:
    runtime = open_runtime(made)
    golden = made.arrays("golden.npz")
    assert golden["images"].shape == (8, 64, 64, 3)
    np.testing.assert_allclose(runtime.run(golden["images"])["logits"], golden["logits"], atol=1e-5)
    reference = made.arrays("reference.npz")
    width = made.card.outputs["embedding"][0]
    trained = len(dataset.split("train"))
    assert reference["embedding_sample"].shape == (trained, width)
    assert reference["embedding_mean"].shape == (width,)
    kept = len(reference["embedding_variances"])
    assert reference["embedding_components"].shape == (kept, width)
    assert (np.diff(reference["neighbour_distance"]) >= 0).all()
    assert reference["grade.prior"].sum() == pytest.approx(1.0)
    assert reference["grade.mean_probability"].sum() == pytest.approx(1.0, abs=1e-4)
    assert reference["grade.confidence_histogram"].sum() == len(dataset.split("val"))
    assert reference["sharpness_percentiles"].shape == (101,)
    assert all(np.isfinite(array).all() for array in reference.values())


def test_the_same_model_gives_the_same_bytes(
    made: Bundle,
    out: Path,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    again = package(model, task, dataset, METRICS, calibration, out, run_id="run-1", served=False)
    assert again.card.created_at == "2023-11-14T22:13:20+00:00"
    assert again.card.files == made.card.files


def test_a_model_that_the_graph_does_not_match_is_blocked(
    out: Path,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import training.export.build as build

    def another(given: Classifier, *args: Any, **options: Any) -> Any:
        exported = real(given, *args, **options)
        with torch.no_grad():
            given.head.bias += torch.arange(len(given.head.bias))
        return exported

    real = build.export_onnx
    monkeypatch.setattr(build, "export_onnx", another)
    before = model.head.bias.detach().clone()
    try:
        with pytest.raises(ParityError, match="ONNX Runtime differs from torch"):
            package(model, task, dataset, METRICS, calibration, out, served=False)
    finally:
        with torch.no_grad():
            model.head.bias.copy_(before)
    assert list(out.parent.iterdir()) == []


def test_a_failed_serving_proof_leaves_nothing(
    out: Path,
    model: Classifier,
    task: Task,
    dataset: Dataset,
    calibration: dict[str, HeadCalibration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import training.export.build as build

    def differs(*args: Any, **options: Any) -> Any:
        raise ParityError("The started server differs.")

    monkeypatch.setattr(build, "served_parity", differs)
    with pytest.raises(ParityError, match="started server differs"):
        package(model, task, dataset, METRICS, calibration, out)
    assert list(out.parent.iterdir()) == []


def test_a_head_without_calibration_is_named(
    out: Path, model: Classifier, task: Task, dataset: Dataset
) -> None:
    with pytest.raises(DataError, match="no calibration for head 'grade'"):
        package(model, task, dataset, METRICS, {}, out, served=False)


def test_a_sample_is_the_same_whatever_the_order(dataset: Dataset) -> None:
    frame = dataset.frame()
    one = sample(frame, 7, 0, "test")
    assert list(one["id"]) == list(sample(frame.sample(frac=1, random_state=1), 7, 0, "test")["id"])
    assert len(sample(frame, 10_000, 0, "test")) == len(frame)
    with pytest.raises(DataError, match="has no odd images"):
        sample(frame.iloc[:0], 3, 0, "odd")


@pytest.mark.slow
def test_real_photographs_through_every_proof(shared_data: Path, tmp_path: Path, home: object) -> None:
    from data.dataset import Head
    from data.ingest import ingest
    from training.calibrate import calibrate_heads
    from training.evaluate import evaluate
    from training.model import build_model
    from training.predict import predict
    from training.task import load_task

    real = load_task("dr_grading", profile="thumbnail")
    heads = [Head(head.name, head.classes) for head in real.heads]
    source = f"medmnist:{shared_data}/retinamnist/retinamnist.npz"
    dataset = ingest(source, heads, tmp_path / "data", task=real.name)
    torch.manual_seed(0)
    network = build_model(real).eval()
    val, test = (predict(network, dataset, split, task=real, device="cpu") for split in ("val", "test"))
    fitted = calibrate_heads(val, real)
    report = evaluate(test, real.heads, dataset.split("test"), calibration=fitted, bootstrap=20)
    made = package(network, real, dataset, report, fitted, tmp_path / "bundle")
    made.card.require_parity()
    assert made.card.parity["onnx"]["images"] == 256
    assert made.card.parity["served"]["answered"] == 8
    assert made.card.weights.licence == "Apache-2.0"
    assert made.card.licence == "CC BY 4.0; Apache-2.0"
    assert dataclasses.asdict(made.card)["dataset"]["synthetic"] is False
