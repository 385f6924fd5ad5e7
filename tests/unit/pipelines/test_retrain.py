"""The pipeline ``retrain`` as a cluster gets it, and what its command line says before anything runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from data.dataset import Dataset
from data.errors import RegistryError, TaskError, UsageError
from data.paths import Home
from pipelines import anomaly, classifier
from pipelines.cluster import Place, write_yaml
from pipelines.commands.loop import app
from pipelines.retrain import NEVER_CACHED, Retrain, retrain_shape, steps
from pipelines.submit import Cluster, submit
from tests.review_exports import Exported, picture
from tests.trainings import HEADS, tiny_dataset
from tests.unit.pipelines.kubeflow import kubeflow
from training.loop.collect import Wishes
from training.loop.due import Trigger
from training.loop.places import LOCK, place
from training.registry.client import Registry
from training.registry.locks import locked
from training.task import Task, load_task

SECRET = {"labels": {"secrets": {"RETIDERM_REVIEW_TOKEN": "review/token"}}}


def task_of(name: str) -> Task:
    return load_task(name, overrides={"steps": SECRET})


def asked(name: str = "dr_grading", **more: Any) -> Retrain:
    return Retrain(task_of(name), "review:https://gateway", export="https://gateway", promote=False, **more)


def every_task(spec: dict[str, Any]) -> dict[str, Any]:
    found = dict(spec["root"]["dag"]["tasks"])
    for component in spec["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


@pytest.fixture(scope="module", params=["dr_grading", "anomaly"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    task = task_of(request.param)
    path = tmp_path_factory.mktemp("yaml") / "p.yaml"
    write_yaml(task, path, Place(), shape=retrain_shape(task))
    spec, platform = yaml.safe_load_all(path.read_text())
    return task, spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_kinds_own_steps_follow(compiled: Any) -> None:
    task, spec, _ = compiled
    own = {"classification": classifier.STEPS, "anomaly": anomaly.STEPS}[task.kind]
    found = set(every_task(spec)) - {"condition-time", "condition-accepted"}
    assert {name for name in found if not name.startswith("condition")} == set(steps(task.kind))
    assert [name for name in steps(task.kind) if name in own] == list(own)
    assert spec["pipelineInfo"]["name"] == f"retrain-{task.name.replace('_', '-')}"


def test_nothing_but_labels_runs_before_it_is_time(compiled: Any) -> None:
    _, spec, _ = compiled
    first = spec["root"]["dag"]["tasks"]
    (branch,) = [task for task in first.values() if "triggerPolicy" in task]
    assert branch["triggerPolicy"]["condition"].endswith("labels-Output'] == 'due'")
    assert len(first) == 2


def test_what_looks_outside_or_changes_it_is_never_cached(compiled: Any) -> None:
    task, spec, _ = compiled
    tasks = every_task(spec)
    cached = {name for name in steps(task.kind) if tasks[name].get("cachingOptions", {}).get("enableCache")}
    assert cached == set(steps(task.kind)) - NEVER_CACHED


def test_ingest_reads_what_labels_say(compiled: Any) -> None:
    _, spec, _ = compiled
    inputs = every_task(spec)["ingest"]["inputs"]["parameters"]
    assert inputs["source"]["componentInputParameter"].endswith("labels-source")
    assert inputs["source_digest"]["componentInputParameter"].endswith("labels-source_digest")


def test_the_gateways_token_is_a_secret_of_one_step(compiled: Any) -> None:
    task, _, executors = compiled
    with_secret = {name for name, told in executors.items() if "secretAsEnv" in told}
    assert with_secret == {"exec-labels"}
    assert executors["exec-labels"]["secretAsEnv"][0]["keyToEnv"] == [
        {"envVar": "RETIDERM_REVIEW_TOKEN", "secretKey": "token"}
    ]
    with pytest.raises(TaskError, match="is no step"):
        load_task(task.name, overrides={"steps": {"label": {}}})


def test_a_schedule_that_waits_until_it_is_time_arrives() -> None:
    request = asked(
        wishes=Wishes(correct=True), trigger=Trigger(False, 30, "/var/lib/retiderm/drift.json"), warm=True
    )
    with kubeflow() as server:
        made = submit(request, Cluster(server.url), cron="0 3 * * *")
    (sent,) = server.recurring
    parameters = sent["runtime_config"]["parameters"]
    assert made.kind == "recurring run"
    assert (parameters["export"], parameters["warm"], parameters["promotes"]) == (
        "https://gateway",
        True,
        False,
    )
    assert json.loads(parameters["trigger"]) == {
        "always": False,
        "labels": 30,
        "drift": "/var/lib/retiderm/drift.json",
        "anyway": False,
    }
    assert json.loads(parameters["wishes"])["correct"] is True
    assert "source" not in parameters
    assert "labels" in every_task(sent["pipeline_spec"]["pipeline_spec"])


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_compile_writes_two_files_with_defaults(tmp_path: Path, home: Home) -> None:
    done = run("compile", "skin_lesion", "--out", str(tmp_path))
    assert done.exit_code == 0, done.exception
    for name, left_open in (("retrain", "export"), ("drift", "windows")):
        spec = next(yaml.safe_load_all((tmp_path / f"{name}-skin_lesion.yaml").read_text()))
        given = spec["root"]["inputDefinitions"]["parameters"]
        assert [name for name, told in given.items() if "defaultValue" not in told] == [left_open]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cron", "0 3 * * *", "--extend-test"], "can't extend the test part"),
        (["--warm-start"], "nothing starts warm"),
    ],
)
def test_what_cannot_be_submitted(home: Home, arguments: list[str], says: str) -> None:
    line = ["submit", "anomaly", "--labels", "https://g", "--host", "http://127.0.0.1:9", "--home-claim", "c"]
    done = run(*line, *arguments)
    assert isinstance(done.exception, UsageError)
    assert says in done.exception.message


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("base"), 40)


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    body = {"name": "tiny", "title": "Tiny", "heads": HEADS, "backbone": "test_resnet", "weights": "none"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(body))
    return str(tmp_path / "tiny.yaml")


def labels(folder: Path) -> str:
    made = Exported()
    for number in range(4):
        made.label(picture(number), "low", reader="anna")
        made.label(picture(number), "low" if number else "high", reader="ben")
    made.label(picture(0), "low", reader="chief", adjudicated=True)
    return str(made.write(folder))


def test_labels_are_looked_at_before_anything_is_made(
    home: Home, tmp_path: Path, base: Dataset, task_file: str
) -> None:
    where = ["--labels", labels(tmp_path / "export"), "--base", str(base.root)]
    done = run("labels", task_file, *where, "--out", str(tmp_path / "report"))
    assert done.exit_code == 0, done.exception
    assert "- 4 added: a new image with this label" in done.stdout
    assert "anna and ben agree on 3 of 4 images" in done.stdout
    assert (tmp_path / "report" / "report.md").is_file()
    told = json.loads(run("labels", task_file, *where, "--json").stdout)
    assert told["counts"]["outcomes"] == {"added": 4}
    assert not home.runs.exists()


def test_when_it_is_not_time_nothing_runs(home: Home, tmp_path: Path, base: Dataset, task_file: str) -> None:
    where = ["--labels", labels(tmp_path / "export"), "--base", str(base.root)]
    done = run("retrain", task_file, *where, "--when-due")
    assert done.exit_code == 0, done.exception
    assert "tiny: waits for labels (4 of 50 labels)" in done.output
    none = str(Exported().write(tmp_path / "none"))
    done = run("retrain", task_file, "--labels", none, "--base", str(base.root), "--when-due")
    assert "tiny: waits for labels (0 of 50 labels)" in done.output
    assert not home.runs.exists()


def test_by_hand_nothing_is_trained_where_nothing_is_new(
    home: Home, tmp_path: Path, base: Dataset, task_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = SimpleNamespace(dataset_digest=base.digest)
    monkeypatch.setattr(Registry, "versions", lambda self, task: [learned])
    where = ["--labels", str(Exported().write(tmp_path / "none")), "--base", str(base.root)]
    done = run("retrain", task_file, *where)
    assert done.exit_code == 0, done.exception
    assert "tiny: nothing new" in done.output
    assert "--anyway" in done.output
    assert not home.runs.exists()
    done = run("retrain", task_file, *where, "--anyway", "--when-due")
    assert isinstance(done.exception, UsageError)


def test_two_at_once(home: Home, tmp_path: Path, base: Dataset, task_file: str) -> None:
    where = ["--labels", labels(tmp_path / "export"), "--base", str(base.root)]
    with locked(place("tiny", LOCK), "the first one"):
        done = run("retrain", task_file, *where)
    assert isinstance(done.exception, RegistryError)
    assert f"A retraining of tiny is under way in another process ({os.getpid()})." in str(done.exception)
    assert not home.runs.exists()


def test_status_says_what_is_waited_for(home: Home, tmp_path: Path, base: Dataset, task_file: str) -> None:
    drift = tmp_path / "drift.json"
    drift.write_text(
        json.dumps({"task": "tiny", "alarm": True, "severity": "warning", "reason": "Colours moved."})
    )
    where = ["--labels", labels(tmp_path / "export"), "--base", str(base.root), "--drift", str(drift)]
    done = run("status", task_file, *where, "--needed", "9")
    assert done.exit_code == 0, done.exception
    for line in (
        "champion    none",
        "labels      4 new, 9 needed",
        "drift       warning: Colours moved.",
        "it is time to train again, drift, and 4 of 9 labels: Colours moved.",
        "a first version",
    ):
        assert line in done.stdout
    (told,) = json.loads(run("status", task_file, *where, "--json").stdout)
    assert (told["task"], told["due"]["due"], told["champion"]) == ("tiny", True, None)
