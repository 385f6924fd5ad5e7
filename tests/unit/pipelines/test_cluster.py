"""The pipeline as a cluster gets it: resources, retries, secrets, caching, and the way there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import TaskError, UsageError
from pipelines.classifier import NEVER_CACHED, STEPS
from pipelines.cluster import HOME_CLAIM, MOUNT, Place, seconds, write_yaml
from pipelines.request import Request
from pipelines.submit import Cluster, SubmitError, check_cron, submit
from tests.unit.pipelines.kubeflow import kubeflow
from training.spec.parts import STEPS as TASK_STEPS
from training.task import Task, load_task

STEP_SPECS = {
    "default": {"cpu": "1", "memory": "2G", "retries": 1},
    "train": {
        "cpu": "8",
        "memory": "32G",
        "gpu": 2,
        "retries": 3,
        "timeout": "12h",
        "secrets": {"MLFLOW_TRACKING_PASSWORD": "mlflow/password"},
        "node_selector": {"pool": "gpu"},
    },
}


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("dr_grading", overrides={"steps": STEP_SPECS})


@pytest.fixture(scope="module")
def compiled(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    path = tmp_path_factory.mktemp("yaml") / "pipeline.yaml"
    place = Place({"MLFLOW_TRACKING_URI": "http://mlflow:5000"}, home_claim="retiderm-home")
    write_yaml(task, path, place)
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def every_task(spec: dict[str, Any]) -> dict[str, Any]:
    found = dict(spec["root"]["dag"]["tasks"])
    for component in spec["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_the_pipeline_has_the_steps_that_tasks_speak_of(compiled: Any) -> None:
    assert STEPS == TASK_STEPS
    assert set(STEPS) <= set(every_task(compiled[0]))


def test_what_changes_the_world_is_never_cached(compiled: Any) -> None:
    tasks = every_task(compiled[0])
    cached = {name for name in STEPS if tasks[name].get("cachingOptions", {}).get("enableCache")}
    assert cached == set(STEPS) - NEVER_CACHED


def test_a_recurring_pipeline_looks_at_its_source_each_time(task: Task, tmp_path: Path) -> None:
    spec, _ = yaml.safe_load_all(write_yaml(task, tmp_path / "p.yaml", fresh=True).read_text())
    tasks = every_task(spec)
    assert not tasks["ingest"].get("cachingOptions", {}).get("enableCache")
    assert tasks["train"]["cachingOptions"]["enableCache"]


def test_promotion_waits_for_the_gate(compiled: Any) -> None:
    spec, _ = compiled
    (branch,) = [t for t in spec["root"]["dag"]["tasks"].values() if "triggerPolicy" in t]
    condition = branch["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--gate-Output'] == 'promote'"
    inside = spec["components"][branch["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inside) == {"promote", "deploy"}


def test_resources_and_retries_come_from_the_task_file(compiled: Any) -> None:
    spec, _ = compiled
    executors = spec["deploymentSpec"]["executors"]
    train = executors["exec-train"]["container"]["resources"]
    assert (train["resourceCpuLimit"], train["resourceMemoryLimit"]) == ("8", "32G")
    assert train["accelerator"]["resourceCount"] == "2"
    assert train["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert executors["exec-export"]["container"]["resources"]["resourceMemoryLimit"] == "2G"
    tasks = every_task(spec)
    assert tasks["train"]["retryPolicy"]["maxRetryCount"] == 3
    assert tasks["gate"]["retryPolicy"]["maxRetryCount"] == 1


def test_secrets_timeouts_nodes_and_volume_are_in_the_spec(compiled: Any) -> None:
    _, executors = compiled
    train = executors["exec-train"]
    assert train["activeDeadlineSeconds"] == "43200"
    (secret,) = train["secretAsEnv"]
    assert secret["secretName"] == "mlflow"
    assert secret["keyToEnv"] == [{"envVar": "MLFLOW_TRACKING_PASSWORD", "secretKey": "password"}]
    assert train["nodeSelector"]["labels"] == {"pool": "gpu"}
    for name in STEPS:
        (volume,) = executors[f"exec-{name}"]["pvcMount"]
        assert (volume["constant"], volume["mountPath"]) == ("retiderm-home", MOUNT)


def test_no_pipeline_is_made_without_a_lasting_ledger(task: Task, tmp_path: Path) -> None:
    _, platform = yaml.safe_load_all(write_yaml(task, tmp_path / "p.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in STEPS:
        (volume,) = executors[f"exec-{name}"]["pvcMount"]
        assert volume["constant"] == HOME_CLAIM
    for claim in ("", "A claim"):
        with pytest.raises(UsageError, match="names no volume claim"):
            Place(home_claim=claim)


def test_the_default_claim_is_the_one_that_the_manifests_make() -> None:
    path = Path(__file__).parents[3] / "manifests/kubeflow/home.yaml"
    assert yaml.safe_load(path.read_text())["metadata"]["name"] == HOME_CLAIM


def test_every_step_runs_in_the_image_and_installs_nothing(compiled: Any) -> None:
    spec, _ = compiled
    for name in STEPS:
        container = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert container["image"].startswith("retiderm/pipelines:")
        assert "pip install" not in " ".join(container["command"])
        assert environment == {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "RETIDERM_HOME": MOUNT}


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129600)])
def test_durations(text: str, value: int) -> None:
    assert seconds(text) == value


def test_no_duration() -> None:
    with pytest.raises(TaskError, match="no duration"):
        seconds("soon")


def test_schedules() -> None:
    assert check_cron("0 3 * * 1") == "0 0 3 * * 1"
    assert check_cron("0 0 3 * * 1") == "0 0 3 * * 1"
    with pytest.raises(UsageError, match="no schedule"):
        check_cron("daily")


def request(task: Task) -> Request:
    return Request(task, "synthetic-fundus?n=40", seed=3, promote=False, actor="ada")


def test_a_run_arrives_with_its_arguments(task: Task) -> None:
    with kubeflow() as server:
        made = submit(request(task), Cluster(server.url, experiment="eyes"), source_digest="sha256:0")
    (sent,) = server.runs
    parameters = sent["runtime_config"]["parameters"]
    assert (made.kind, made.id) == ("run", "r0")
    assert made.link.endswith("/#/runs/details/r0")
    assert server.experiments[0]["display_name"] == "eyes"
    assert sent["experiment_id"] == "e0"
    assert (parameters["source"], parameters["seed"], parameters["promotes"]) == (
        "synthetic-fundus?n=40",
        3,
        False,
    )
    assert json.loads(parameters["task"])["name"] == "dr_grading"
    assert parameters["model_code"].startswith("sha256:")
    spec = sent["pipeline_spec"]["pipeline_spec"]
    assert not every_task(spec)["gate"].get("cachingOptions", {}).get("enableCache")
    assert every_task(spec)["ingest"]["cachingOptions"]["enableCache"]


def test_a_schedule_arrives(task: Task) -> None:
    with kubeflow() as server:
        made = submit(request(task), Cluster(server.url), cron="0 3 * * 1", source_digest="sha256:0")
    (sent,) = server.recurring
    assert made.kind == "recurring run"
    assert sent["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert sent["max_concurrency"] == 1
    tasks = every_task(sent["pipeline_spec"]["pipeline_spec"])
    assert not tasks["ingest"].get("cachingOptions", {}).get("enableCache")


def test_the_token_comes_from_the_environment(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubeflow(token="secret") as server:
        with pytest.raises(SubmitError, match="401") as refused:
            submit(request(task), Cluster(server.url))
        assert "RETIDERM_KFP_TOKEN" in str(refused.value.hint)
        monkeypatch.setenv("RETIDERM_KFP_TOKEN", "secret")
        assert submit(request(task), Cluster(server.url)).id == "r0"


@pytest.mark.parametrize(
    ("host", "error", "says"),
    [
        ("http://127.0.0.1:9", SubmitError, "can't be reached"),
        ("kubeflow:8888", UsageError, "no address"),
        ("file:///etc/passwd", UsageError, "no address"),
    ],
)
def test_a_wrong_address_is_named(task: Task, host: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        submit(request(task), Cluster(host))
