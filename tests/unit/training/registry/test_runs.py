"""The run that a version is kept in: the training's, as long as MLflow has it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from components.register import register
from tests.bundles import tiny_bundle
from training.registry.client import Registry

TASK = "dr_grading"
PROVED = {name: {"passed": True} for name in ("onnx", "cam", "served")}


@pytest.fixture
def trained(registry: Registry) -> str:
    experiment = registry.client.create_experiment(TASK)
    return str(registry.client.create_run(experiment).info.run_id)


def carry_out(tmp_path: Path, run: str, seed: int) -> str:
    """The component, as a pod calls it."""
    bundle = tiny_bundle(tmp_path / f"bundle-{seed}", task=TASK, seed=seed, parity=PROVED)
    said = tmp_path / f"said-{seed}"
    (said / "pictures").mkdir(parents=True)
    (said / "test.npz").write_bytes(b"answers")
    (said / "evaluation.json").write_text("{}")
    version: str = register.python_func(
        SimpleNamespace(path=str(bundle.root)),
        SimpleNamespace(path=str(said)),
        SimpleNamespace(path=str(said / "evaluation.json")),
        SimpleNamespace(path=str(said / "pictures")),
        run,
    )
    return version


@pytest.fixture(autouse=True)
def tracked(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry._uri or "")


def test_a_training_that_is_there_keeps_all_its_versions(
    registry: Registry, trained: str, tmp_path: Path
) -> None:
    for seed in (1, 2):
        version = registry.get(TASK, carry_out(tmp_path, trained, seed))
        assert version.run_id == trained
    for version in registry.versions(TASK):
        assert registry.bundle(version).digest == version.digest


@pytest.mark.parametrize("gone", ["deleted", "unknown", "never"])
def test_a_training_whose_run_is_gone_still_becomes_a_version(
    registry: Registry, trained: str, tmp_path: Path, gone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"deleted": trained, "unknown": "0" * 32, "never": ""}[gone]
    if gone == "deleted":
        registry.client.delete_run(trained)
    version = registry.get(TASK, carry_out(tmp_path, run, 1))
    assert version.run_id not in ("", run)
    assert registry.client.get_run(version.run_id).info.status == "FINISHED"
    assert registry.bundle(version).digest == version.digest
    assert "a run of its own" in capsys.readouterr().out
