"""The pipeline ``drift`` as a cluster gets it, once or on a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from data.errors import TaskError, UsageError
from data.paths import Home
from pipelines.cluster import HOME_CLAIM, MOUNT, Place, write_yaml
from pipelines.commands.loop import app
from pipelines.drift import Look, build, drift_shape
from tests.unit.pipelines.kubeflow import kubeflow
from training.task import load_task

SECRET = {"drift": {"memory": "4G", "secrets": {"RETIDERM_REVIEW_TOKEN": "review/token"}}}


@pytest.fixture(scope="module", params=["dr_grading", "anomaly"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    task = load_task(request.param, overrides={"steps": SECRET})
    path = tmp_path_factory.mktemp("yaml") / "p.yaml"
    place = Place({"MLFLOW_TRACKING_URI": "http://mlflow:5000"})
    write_yaml(task, path, place, fresh=True, shape=drift_shape(task))
    spec, platform = yaml.safe_load_all(path.read_text())
    return task, spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_it_is_one_step_that_is_never_cached(compiled: Any) -> None:
    task, spec, _ = compiled
    assert spec["pipelineInfo"]["name"] == f"drift-{task.name.replace('_', '-')}"
    ((name, step),) = spec["root"]["dag"]["tasks"].items()
    assert name == "drift"
    assert not step["cachingOptions"].get("enableCache")
    assert spec["root"]["inputDefinitions"]["parameters"]["size"]["defaultValue"] == 200
    assert spec["root"]["outputDefinitions"]["parameters"]["Output"]["parameterType"] == "BOOLEAN"


def test_the_step_has_its_resources_its_token_and_the_lasting_ledger(compiled: Any) -> None:
    _, spec, executors = compiled
    container = spec["deploymentSpec"]["executors"]["exec-drift"]["container"]
    assert container["resources"]["resourceMemoryLimit"] == "4G"
    assert container["image"].startswith("retiderm/pipelines:")
    assert "pip install" not in " ".join(container["command"])
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment == {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "RETIDERM_HOME": MOUNT}
    (secret,) = executors["exec-drift"]["secretAsEnv"]
    assert (secret["secretName"], secret["keyToEnv"]) == (
        "review", [{"envVar": "RETIDERM_REVIEW_TOKEN", "secretKey": "token"}],
    )  # fmt: skip
    (volume,) = executors["exec-drift"]["pvcMount"]
    assert (volume["constant"], volume["mountPath"]) == (HOME_CLAIM, MOUNT)


def test_configure_is_handed_the_step() -> None:
    told: list[str] = []
    build(lambda step, task: told.append(step))
    assert told == ["drift"]


def test_an_unknown_step_is_still_refused() -> None:
    with pytest.raises(TaskError, match="no step"):
        load_task("dr_grading", overrides={"steps": {"drifts": {}}})


def test_a_schedule_arrives_with_its_arguments(home: Home, tmp_path: Path) -> None:
    with kubeflow() as server:
        line = ["watch", "dr_grading", "--windows", "http://gateway", "--host", server.url]
        done = CliRunner().invoke(
            app,
            [*line, "--home-claim", "c", "--cron", "0 5 * * *", "--level", "0.05"],
            catch_exceptions=False,
        )
    assert done.exit_code == 0
    assert done.stdout.startswith("recurring run j0\n")
    (sent,) = server.recurring
    assert sent["display_name"] == "dr_grading from http://gateway"
    assert sent["trigger"]["cron_schedule"]["cron"] == "0 0 5 * * *"
    assert sent["runtime_config"]["parameters"] == {
        "task": "dr_grading", "windows": "http://gateway", "level": 0.05, "size": 200,
    }  # fmt: skip
    (step,) = sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].values()
    assert not step["cachingOptions"].get("enableCache")


def test_a_run_arrives_at_once(home: Home) -> None:
    with kubeflow() as server:
        line = ["watch", "dr_grading", "--windows", "windows", "--host", server.url, "--home-claim", "c"]
        assert CliRunner().invoke(app, line).exit_code == 0
    assert server.runs[0]["runtime_config"]["parameters"]["windows"] == "windows"


def test_a_level_that_is_none_is_refused_before_anything_is_sent(home: Home) -> None:
    with kubeflow() as server:
        line = ["watch", "dr_grading", "--windows", "w", "--host", server.url, "--home-claim", "c"]
        done = CliRunner().invoke(app, [*line, "--level", "2"])
    assert isinstance(done.exception, UsageError)
    assert not server.runs


def test_a_look_knows_its_task() -> None:
    task = load_task("acne")
    assert Look(task, "http://gateway").arguments("")["task"] == "acne"
