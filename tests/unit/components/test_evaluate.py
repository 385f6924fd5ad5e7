"""The step that judges a trained model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.evaluate import evaluate
from data.dataset import Dataset
from data.files import read_json, write_json
from tests.trainings import tiny_task
from training import predict as answers
from training.model import build_model, save_model


def test_test_images_of_one_class_have_no_auc_and_the_step_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tiny_task()
    model = build_model(task)
    write_json(tmp_path / "task.json", task.to_dict())
    save_model(model, model.state_dict(), tmp_path / "model.safetensors")
    given = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    found = answers.Predictions(
        ids=np.array([f"i{k}" for k in range(6)]),
        logits=given,
        labels={"grade": np.ones(6, np.int64), "side": np.array([0, 1, 0, 1, 0, 1])},
        embedding=given,
    )
    monkeypatch.setattr(answers, "predict", lambda *_, **__: found)
    monkeypatch.setattr(Dataset, "open", lambda folder: None)
    logged: dict[str, float] = {}
    evaluate.python_func(
        model=SimpleNamespace(path=str(tmp_path)),
        dataset=SimpleNamespace(path=str(tmp_path)),
        dataset_digest="",
        code_digest="",
        predictions=SimpleNamespace(path=str(tmp_path / "said")),
        evaluation=SimpleNamespace(path=str(tmp_path / "report.json"), log_metric=logged.__setitem__),
    )
    assert read_json(tmp_path / "report.json")["heads"]["grade"]["auc"]["value"] is None
    assert set(logged) == {"side.auc"}
    assert "grade AUC n/a, side AUC 0." in capsys.readouterr().out
