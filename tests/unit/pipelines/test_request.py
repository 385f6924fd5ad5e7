"""What the pipeline is told of a task, and so what a finished training is found again by."""

from __future__ import annotations

import json
from pathlib import Path

from data.files import sha256_bytes
from pipelines.request import Request, task_arguments
from training.task import Task, load_task, task_from_dict


def task(weights: str = "none", heads: tuple[str, ...] = ("b", "a")) -> Task:
    return task_from_dict(
        {
            "name": "small",
            "title": "Small",
            "heads": {name: {"classes": ["no", "yes"]} for name in heads},
            "weights": weights,
        }
    )


def test_another_content_of_a_weights_file_is_another_recipe(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    path.write_bytes(b"one")
    first = task_arguments(task(str(path)))
    told = task_from_dict(json.loads(first["recipe"]))
    assert told.weights.sha256 == sha256_bytes(b"one")
    assert task_arguments(task(str(path))) == first
    path.write_bytes(b"two")
    assert task_arguments(task(str(path)))["recipe"] != first["recipe"]
    assert told.training_digest != task(str(path)).training_digest, "the training is for the file as it was"


def test_heads_keep_the_tasks_order() -> None:
    for heads in (("b", "a"), ("a", "b")):
        told = task_arguments(task(heads=heads))
        for name in ("task", "recipe"):
            assert [head.name for head in task_from_dict(json.loads(told[name])).heads] == list(heads)
        assert list(json.loads(told["heads"])) == list(heads)
    assert task_arguments(task(heads=("a", "b")))["recipe"] != task_arguments(task())["recipe"]


def test_an_anomaly_tasks_images_are_split_for_one_class_unless_asked_otherwise() -> None:
    anomaly = load_task("anomaly", overrides={"weights": "none"})
    assert Request(anomaly, "folders:x").arguments("")["split"] == "one-class"
    assert Request(anomaly, "folders:x", split="fold:0/5").arguments("")["split"] == "fold:0/5"
    assert Request(task(), "folders:x").arguments("")["split"] == ""
