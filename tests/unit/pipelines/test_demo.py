"""The demo's parts: its profile, its pictures, and what it must not hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import ServingError
from data.quality import assess, load_profile
from pipelines import demo
from pipelines.demo import DemoTask, blurred, demo_tasks, served, summary, surprises
from pipelines.request import resolve

QUALITY = {"dr_grading": "fundus", "skin_lesion": "dermoscopy"}


def settings(task: DemoTask) -> list[str]:
    return [f"{key}={demo._flow(value)}" for key, value in task.settings.items()]


def test_the_profile_fits_the_tasks() -> None:
    tasks = demo_tasks()
    assert [task.name for task in tasks] == ["dr_grading", "skin_lesion"]
    for task in tasks:
        resolved, overrides = resolve(task.name, task.source, settings=settings(task))
        assert overrides["gate.floors"] == dict(resolved.gate.floors)
        assert overrides["train.epochs"] == resolved.train.epochs


def test_the_floors_are_no_lower_than_the_tasks_own() -> None:
    for task in demo_tasks():
        own, _ = resolve(task.name, task.source)
        ours, _ = resolve(task.name, task.source, settings=settings(task))
        assert {
            name: value for name, value in own.gate.floors.items() if ours.gate.floors[name] < value
        } == {}


@pytest.mark.parametrize("task", demo_tasks(), ids=lambda task: task.name)
def test_the_quality_gate_tells_sharp_from_blurred(task: DemoTask) -> None:
    import cv2

    from data.dataset import Head
    from data.sources import open_source

    resolved, _ = resolve(task.name, task.source, settings=settings(task))
    heads = [Head(head.name, head.classes) for head in resolved.heads]
    source = open_source(task.source.replace("n=", "n=6&x=").split("&x=")[0] + "&size=224&seed=7")
    profile = load_profile(QUALITY[task.name])
    verdicts = []
    for sample in source.samples(heads):
        for image in (sample.read(), blurred(sample.read())):
            rgb = cv2.cvtColor(
                cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
            )
            verdicts.append(assess(rgb.astype(np.uint8), profile).verdict)
    assert verdicts[1::2].count("gradable") == 0
    assert verdicts[::2].count("gradable") >= 4


def outcome(status: str) -> dict[str, Any]:
    return {
        "source": "synthetic-fundus",
        "overrides": {},
        "status": status,
        "version": "1",
        "bundle_digest": None,
        "metrics": None,
        "calibration": None,
        "gate": {"decision": "refuse" if status == "refused" else "accept", "reasons": ["Below the floor."]},
        "promoted": status != "refused",
        "seconds": 1.0,
        "artifacts": {"run": "/r"},
    }


def row(kind: str, verdict: str) -> dict[str, Any]:
    return {"image": kind, "answer": {"quality": {"verdict": verdict}}}


def test_what_a_reader_must_not_overlook(tmp_path: Path) -> None:
    outcomes = {"a": outcome("completed"), "b": outcome("refused")}
    answers = {"a": [row("sharp", "retake"), row("blurred", "gradable")]}
    value = summary(outcomes, answers, 12.34, tmp_path)
    assert (tmp_path / "summary.json").is_file()
    assert value["synthetic"] is True
    assert value["seconds"] == 12.3
    told = surprises(value)
    assert len(told) == 3
    assert told[0] == "a: the sharp image was not answered (retake)."
    assert told[2] == "b: the gate refused version 1: Below the floor."
    assert (
        surprises(
            summary(
                {"a": outcome("completed")},
                {"a": [row("sharp", "gradable"), row("blurred", "retake")]},
                1,
                tmp_path,
            )
        )
        == []
    )


def test_servers_that_do_not_come_up_are_told_with_their_last_words(home: Any, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="did not come up") as told, served(tmp_path / "serve.log"):
        pass
    assert "serve.log" in str(told.value.hint)
