from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.dataset import Dataset
from data.errors import DatasetError, TaskError, UsageError
from data.files import read_json, write_json
from data.paths import Home
from tests.trainings import tiny_task
from training import cli

runner = CliRunner()


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    write_json(path, tiny_task().to_dict())
    return path


def call(*arguments: object) -> str:
    result = runner.invoke(cli.app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_fit_then_evaluate(tiny: Dataset, task_file: Path, out: Path, tmp_path: Path, home: Home) -> None:
    given = ("--task", task_file, "--data", tiny.root, "--out", out, "--no-tracking")
    said = call("fit", *given, "--set", "train.epochs=1", "--seed", 4)
    assert "epoch 1 of 1 kept" in said
    assert read_json(out / "fit.json")["seed"] == 4
    kept = tmp_path / "val.npz"
    shown = json.loads(call("evaluate", "--out", out, "--data", tiny.root, "--json", "--save", kept))
    assert shown["heads"]["grade"] == pytest.approx(read_json(out / "fit.json")["val"]["grade"], abs=1e-6)
    assert kept.is_file()
    assert "balanced_accuracy" in call("evaluate", "--out", out, "--data", tiny.root, "--split", "test")


def test_mistakes_are_told_as_such(tiny: Dataset, task_file: Path, out: Path, home: Home) -> None:
    for arguments, error in (
        (("--task", task_file, "--data", tiny.root, "--set", "train.epoch=1"), TaskError),
        (("--task", task_file, "--data", out / "none"), DatasetError),
        (("--task", task_file, "--data", tiny.root, "-s", "backbone=a", "--backbone", "b"), UsageError),
        (("--task", task_file, "--data", tiny.root, "--backbone", "resnet5"), TaskError),
    ):
        with pytest.raises(error):
            call("fit", *arguments, "--out", out, "--no-tracking")


def test_every_setting_is_listed() -> None:
    said = call("knobs")
    assert "train.mixup_alpha" in said
    assert "train.augment.rotate_degrees" in said


def test_as_a_program_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["fit", "--task", "dr_gradin", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["cli", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert said.count("\n") == 1


def test_an_anomaly_task_is_not_trained(tiny: Dataset, out: Path, home: Home) -> None:
    with pytest.raises(UsageError, match="nothing of it is trained"):
        call("fit", "--task", "anomaly", "--data", tiny.root, "--out", out, "--no-tracking")
