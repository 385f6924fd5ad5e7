from __future__ import annotations

import contextlib
import multiprocessing
from pathlib import Path

import pytest

from data.dataset import Dataset
from data.errors import RegistryError
from data.paths import Home
from tests.trainings import tiny_task
from training import tracking
from training.fit import fit
from training.fit.checkpoint import TRACKING
from training.tracking import Tracker, client, flatten, run, tracking_uri


@pytest.fixture(autouse=True)
def _local(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def _begin(root: str) -> str:
    import os

    os.environ["RETIDERM_HOME"] = root
    with run("race", "one", params={"a": 1}) as tracker:
        return tracker.run_id


@pytest.mark.slow
def test_several_processes_may_begin_on_a_fresh_store_at_once(home: Home) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        ids = pool.map(_begin, [str(home.root)] * 2)
    assert len(set(ids)) == 2
    assert {client().get_run(run_id).info.status for run_id in ids} == {"FINISHED"}


def test_a_half_made_store_is_finished(home: Home) -> None:
    import sqlite3

    home.mlflow.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(home.mlflow / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    assert client().search_experiments()


def test_a_run_holds_what_it_was_told_and_the_machines_load(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("hello")
    with run(
        "eyes", "first", params={"train": {"lr": 0.1}, "seed": 3}, tags={"dataset_digest": "sha256:1"}
    ) as t:
        for epoch in range(3):
            t.log_metrics({"val.auc": 0.5 + 0.1 * epoch}, epoch)
        t.log_metric("best", 0.7)
        t.log_artifact(page, "training")
    found = client().get_run(t.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"train.lr": "0.1", "seed": "3"}
    assert found.data.tags["dataset_digest"] == "sha256:1"
    assert found.data.metrics["best"] == 0.7
    assert any(name.startswith("system/cpu") for name in found.data.metrics)
    curve = client().get_metric_history(t.run_id, "val.auc")
    assert [(point.step, round(point.value, 1)) for point in curve] == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert found.info.artifact_uri.startswith((home.mlflow / "artifacts" / "eyes").as_uri())
    assert (home.mlflow / "artifacts" / "eyes" / t.run_id / "artifacts" / "training" / "page.md").is_file()
    assert not (tmp_path / "mlruns").exists()


def test_a_given_run_is_joined_and_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    store = client()
    given = store.create_run("0").info.run_id
    store.log_param(given, "seed", "theirs")
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with run("eyes", "step", params={"seed": 1, "epochs": 2}) as tracker:
        assert tracker.run_id == given
    found = store.get_run(given)
    assert found.info.status == "RUNNING", "its owner ends it"
    assert found.data.params == {"seed": "theirs", "epochs": "2"}
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with run("eyes", "step") as tracker:
        assert tracker.run_id not in {given, "0" * 32}


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_a_run_says_how_it_ended_and_can_be_taken_up_again(error: type[BaseException], status: str) -> None:
    with pytest.raises(error), run("eyes", "first") as tracker:
        raise error
    assert client().get_run(tracker.run_id).info.status == status
    with run("eyes", "again", run_id=tracker.run_id) as again:
        assert again.run_id == tracker.run_id
    assert client().get_run(tracker.run_id).info.status == "FINISHED"


def test_a_store_out_of_reach_is_said_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert tracking_uri() == "http://127.0.0.1:9"
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"), run("eyes", "first"):
        pass


def test_what_a_store_missed_is_sent_with_the_next_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with run("eyes", "first") as tracker:
        real = tracker._client.log_batch

        def away(*args: object, **named: object) -> None:
            raise OSError("connection refused")

        monkeypatch.setattr(tracker._client, "log_batch", away)
        tracker.log_metric("loss", 2.0, 0)
        tracker.log_metric("loss", 1.0, 1)
        monkeypatch.setattr(tracker._client, "log_batch", real)
        tracker.log_metric("loss", 0.5, 2)
    assert [p.value for p in client().get_metric_history(tracker.run_id, "loss")] == [2.0, 1.0, 0.5]
    assert capsys.readouterr().err.count("connection refused") == 1


def test_a_training_is_recorded_with_its_curves(tiny: Dataset, out: Path) -> None:
    result = fit(tiny_task(epochs=2), tiny, out, device="cpu")
    assert result.run_id is not None
    found = client().get_run(result.run_id)
    assert found.data.params["train.epochs"] == "2"
    assert found.data.params["backbone"] == "test_efficientnet"
    assert found.data.tags["dataset_digest"] == tiny.digest
    assert found.data.tags["code_digest"].startswith("sha256:")
    assert len(client().get_metric_history(result.run_id, "val.grade.auc")) == 2
    names = {item.path for item in client().list_artifacts(result.run_id, "training")}
    assert names == {
        f"training/{name}" for name in ("curves.png", "fit.json", "task.json", "model.safetensors")
    }
    assert not (out / TRACKING).exists()


def test_a_training_that_goes_on_reports_to_the_same_run(
    tiny: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tracking.Tracker.log_metrics

    def stop_after_the_first(self: Tracker, metrics: dict[str, float], step: int | None = None) -> None:
        real(self, metrics, step)
        if "train.loss" in metrics:
            raise KeyboardInterrupt

    monkeypatch.setattr(tracking.Tracker, "log_metrics", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_task(epochs=2), tiny, out)
    first = (out / TRACKING).read_text()
    monkeypatch.setattr(tracking.Tracker, "log_metrics", real)
    result = fit(tiny_task(epochs=2), tiny, out)
    assert result.run_id is not None
    assert result.run_id in first
    steps = {point.step for point in client().get_metric_history(result.run_id, "train.loss")}
    assert steps == {0, 1}


def test_a_training_killed_before_it_was_recorded_is_recorded_at_the_next_start(
    tiny: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing of the run's own handles it."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("training.fit.run.record", killed)
        with pytest.raises(Killed):
            fit(tiny_task(epochs=1), tiny, out)
    assert (out / "fit.json").is_file()
    result = fit(tiny_task(epochs=1), tiny, out)
    assert result.run_id is not None
    assert client().get_run(result.run_id).info.status == "FINISHED"
    assert "best.epoch" in client().get_run(result.run_id).data.metrics
    names = {item.path for item in client().list_artifacts(result.run_id, "training")}
    assert "training/curves.png" in names
    assert not (out / TRACKING).exists()


def test_nested_names_are_joined_by_dots() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1]}) == {"a.b.c": 1, "d": [1]}
