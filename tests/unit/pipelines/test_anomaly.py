"""The anomaly pipeline: as a cluster gets it, what its steps depend on, and its runs' results."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from rich.console import Console

from data.errors import TaskError
from data.files import write_json
from pipelines.anomaly import NEVER_CACHED, STEPS
from pipelines.cluster import MOUNT, Place, write_yaml
from pipelines.fingerprint import code_digests
from pipelines.local import RunRecord, new_run_id
from pipelines.outcome import show
from pipelines.recorder import StepRecord
from pipelines.request import Request, task_arguments
from pipelines.result import SCHEMA, write
from pipelines.shape import shape_of
from training.spec.parts import ANOMALY_STEPS
from training.task import load_task, task_from_dict

NUMBER = {"value": 0.8, "low": None, "high": None}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    steps = {
        "default": {"cpu": "1", "retries": 1},
        "features": {"cpu": "8", "memory": "16G", "timeout": "1h"},
    }
    task = load_task("anomaly", overrides={"steps": steps})
    path = tmp_path_factory.mktemp("yaml") / "pipeline.yaml"
    write_yaml(task, path, Place(home_claim="retiderm-home"))
    spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def every_task(spec: dict[str, Any]) -> dict[str, Any]:
    found = dict(spec["root"]["dag"]["tasks"])
    for component in spec["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_the_pipeline_has_the_steps_that_anomaly_tasks_speak_of(compiled: Any) -> None:
    assert STEPS == ANOMALY_STEPS == shape_of(load_task("anomaly")).steps
    assert set(STEPS) <= set(every_task(compiled[0]))
    assert compiled[0]["pipelineInfo"]["name"] == "anomaly-anomaly"


def test_what_changes_the_world_is_never_cached(compiled: Any) -> None:
    tasks = every_task(compiled[0])
    cached = {name for name in STEPS if tasks[name].get("cachingOptions", {}).get("enableCache")}
    assert cached == set(STEPS) - NEVER_CACHED


def test_steps_get_what_the_task_file_says_and_the_volume(compiled: Any) -> None:
    spec, executors = compiled
    resources = spec["deploymentSpec"]["executors"]["exec-features"]["container"]["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("8", "16G")
    assert executors["exec-features"]["activeDeadlineSeconds"] == "3600"
    for name in STEPS:
        (volume,) = executors[f"exec-{name}"]["pvcMount"]
        assert (volume["constant"], volume["mountPath"]) == ("retiderm-home", MOUNT)


def test_promotion_waits_for_the_gate(compiled: Any) -> None:
    (branch,) = [t for t in compiled[0]["root"]["dag"]["tasks"].values() if "triggerPolicy" in t]
    assert branch["triggerPolicy"]["condition"].endswith("== 'promote'")


def test_a_task_may_only_speak_of_its_own_pipelines_steps() -> None:
    with pytest.raises(TaskError, match=r"steps\.train.* is no step"):
        load_task("anomaly", overrides={"steps": {"train": {"gpu": 1}}})
    with pytest.raises(TaskError, match=r"steps\.coreset.* is no step"):
        load_task("dr_grading", overrides={"steps": {"coreset": {"cpu": "2"}}})


def test_each_step_is_told_only_what_its_result_depends_on() -> None:
    plain = task_arguments(load_task("anomaly"))

    def changed(**overrides: Any) -> set[str]:
        other = task_arguments(load_task("anomaly", overrides=overrides))
        return {name for name in plain if other[name] != plain[name]}

    assert changed(**{"gate.floors": {"auc": 0.5}}) == {"task"}
    assert changed(**{"patchcore.blur_sigma": 9}) == {"task", "scoring"}
    assert changed(**{"patchcore.score": "top_mean"}) == {"task", "scoring"}
    assert changed(**{"patchcore.coreset_rate": 0.5}) == {"task", "scoring", "coreset_rate"}
    assert changed(**{"patchcore.neighbourhood": 5}) == {"task", "scoring", "recipe"}
    assert changed(input_size=128) == {"task", "scoring", "recipe"}
    for name in ("recipe", "scoring"):
        assert task_from_dict(json.loads(plain[name])).kind == "anomaly"


def test_another_content_of_a_weights_file_is_another_extractor(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    first = task_arguments(load_task("anomaly", overrides={"weights": str(path)}))["recipe"]
    path.write_bytes(b"two")
    assert task_arguments(load_task("anomaly", overrides={"weights": str(path)}))["recipe"] != first


def test_the_seed_is_the_tasks_own_unless_given() -> None:
    task = load_task("anomaly", overrides={"patchcore.seed": 7})
    assert shape_of(task).seed(task) == 7
    classifier = load_task("dr_grading", overrides={"train.seed": 5})
    assert shape_of(classifier).seed(classifier) == 5
    assert Request(task, "x", seed=3).arguments("")["seed"] == 3


def test_one_kinds_code_is_no_reason_to_make_the_others_models_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import fingerprint

    for name in ("training/patchcore", "training/fit", "serving/core", "pipelines"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "pipelines/fingerprint.py"))

    def models() -> dict[str, str]:
        return {kind: code_digests(kind)["model_code"] for kind in ("classification", "anomaly")}

    before = models()
    (tmp_path / "training/patchcore/build.py").write_text("x = 1")
    after = models()
    assert after["classification"] == before["classification"]
    assert after["anomaly"] != before["anomaly"]
    (tmp_path / "serving/core/search.py").write_text("x = 1")
    assert models()["anomaly"] != after["anomaly"]
    assert models()["classification"] == before["classification"]


def finished(tmp_path: Path, decision: str = "accept") -> RunRecord:
    """A run to its end, from artifacts as the steps leave them."""
    digest = "sha256:" + "0" * 64
    head = {
        "n": 12,
        **dict.fromkeys(("auc", "accuracy", "balanced_accuracy", "f1", "best_f1", "pixel_auroc"), NUMBER),
        "pro": dict.fromkeys(NUMBER),
        "classes": {"ok": {"n": 6, **dict.fromkeys(("auc", "sensitivity", "specificity"), NUMBER)}},
    }
    built = {"images": 9, "copies": 9, "patches_made": 900, "patches": 900, "coreset": 18}
    built |= {"coreset_rate": 0.02, "cover_radius": 0.1, "seed": 0, "seconds": 0.1}
    files: dict[str, Any] = {
        "dataset/dataset.json": {"digest": digest, "test_digest": digest, "synthetic": False, "forbids": []},
        "bundle/card.json": {"forbids": [], "parity": {"features": {"max_difference": 1e-6}}},
        "memory/built.json": built,
        "evaluation": {
            "heads": {"status": head},
            "threshold": {"threshold": 0.4, "p99_ok": 0.4, "p5_ng": None, "mm_per_px": 1.0},
        },
        "decision": {"decision": decision, "reasons": ["Because."], "champion": None, "comparisons": []},
        "receipt": {"version": "3"},
    }
    for name, value in files.items():
        write_json(tmp_path / name, value)
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    folder = tmp_path / "run"
    folder.mkdir()
    record = RunRecord(Request(load_task("anomaly"), "mvtec:/x"), new_run_id("anomaly", now), folder, now, "")
    record.steps = {name: StepRecord(name, "done", 1.0) for name in STEPS}
    record.outputs = {
        "ingest": {"dataset": tmp_path / "dataset", "Output": digest},
        "coreset": {"memory": tmp_path / "memory"},
        "evaluate": {"evaluation": tmp_path / "evaluation", "Output": "run1"},
        "export": {"bundle": tmp_path / "bundle"},
        "register": {"Output": "3"},
        "gate": {"decision": tmp_path / "decision", "Output": "promote"},
        "promote": {"receipt": tmp_path / "receipt"},
        "deploy": {"Output": "local"},
    }
    return record


def test_the_result_says_threshold_and_memory_and_no_probabilities(tmp_path: Path) -> None:
    value = write(finished(tmp_path), None)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(value)))
    assert (value["kind"], value["mlflow_run_id"], value["calibration"]) == ("anomaly", "run1", None)
    assert value["metrics"]["status"]["pixel_auroc"] == NUMBER
    assert value["metrics"]["status"]["nll"] == dict.fromkeys(NUMBER)
    assert value["anomaly"]["threshold"] == 0.4
    assert value["anomaly"]["memory"]["coreset"] == 18
    assert value["anomaly"]["parity"] == 1e-6
    assert [step["name"] for step in value["steps"]] == list(STEPS)


def test_a_result_without_the_newer_keys_is_still_valid(tmp_path: Path) -> None:
    value = write(finished(tmp_path), None)
    for name in ("kind", "anomaly"):
        del value[name]
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(json.loads(json.dumps(value)))


def test_the_outcome_in_words(tmp_path: Path) -> None:
    shown = io.StringIO()
    show(write(finished(tmp_path), None), Console(file=shown, width=80, soft_wrap=True))
    text = shown.getvalue()
    assert "pixel AUROC            0.800" in text
    assert "threshold              0.400           memory: 18 of 900 patches" in text
    assert "NLL" not in text
    assert "PRO" not in text  # not defined here
    assert "promoted: anomaly version 3 is champion" in text
