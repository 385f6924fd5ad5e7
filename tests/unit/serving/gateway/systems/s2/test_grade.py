"""S2's words for a model's answer, and what its clients may send."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from data.errors import Conflict, NotGradable, ServingError
from serving.gateway.models import Answer
from serving.gateway.systems.s2.grade import CLASSES, HEAD, SEVERITIES, TASK, grade
from serving.gateway.systems.s2.request import read_asked
from serving.replies import ModelReply
from tests.gateway_rows import ORIGIN
from training.task import load_task


def answer(probabilities: dict[str, float], *, verdict: str = "gradable", head: str = HEAD) -> Answer:
    label = max(probabilities, key=probabilities.__getitem__)
    told = {
        "label": label,
        "confidence": probabilities[label],
        "probabilities": probabilities,
        "set": [label, "mild"],
        "uncertain": True,
    }
    document: dict[str, Any] = {
        "quality": {"verdict": verdict, "reasons": [] if verdict == "gradable" else ["blurred"]},
        "heads": {head: told} if verdict == "gradable" else {},
        "model": {"name": TASK, "version": "3", "digest": "sha256:b", "precision": "fp32"},
    }
    return Answer(document, ModelReply.read(document), b"", ORIGIN)


def test_the_classes_are_the_tasks_own() -> None:
    task = load_task(TASK)
    assert [(head.name, tuple(head.classes)) for head in task.heads] == [(HEAD, CLASSES)]
    assert len(SEVERITIES) == len(CLASSES) == 5


@pytest.mark.parametrize("place", range(5))
def test_each_class_has_its_grade_and_severity(place: int) -> None:
    # In another order than the grades': a model's order is its own.
    values = {label: 0.6 if label == CLASSES[place] else 0.1 for label in sorted(CLASSES)}
    said = grade(answer(values))
    assert said["grade"] == place
    assert said["dr_severity"] == SEVERITIES[place]
    assert said["confidence_score"] == 0.6
    assert said["probabilities"] == {name: 0.6 if i == place else 0.1 for i, name in enumerate(SEVERITIES)}
    assert list(said["probabilities"]) == list(SEVERITIES)
    assert said["uncertain"] is True
    assert said["set"] == [SEVERITIES[place], "Mild"]


@pytest.mark.parametrize("verdict", ["retake", "ungradable"])
def test_an_ungradable_image_has_no_grade(verdict: str) -> None:
    with pytest.raises(NotGradable, match="blurred"):
        grade(answer(dict.fromkeys(CLASSES, 0.2), verdict=verdict))


def test_another_kind_of_model_has_none_either() -> None:
    with pytest.raises(ServingError):
        grade(answer(dict.fromkeys(CLASSES, 0.2), head="stage"))
    with pytest.raises(ServingError):
        grade(answer({"no": 0.1, "yes": 0.9}))


WHOLE = {"patient_id": "p", "visit_type": "follow-up", "notes": "n"}
NOTHING: dict[str, str] = {}


@pytest.mark.parametrize("split", [(WHOLE, NOTHING), (NOTHING, WHOLE), (WHOLE, WHOLE)])
def test_from_either_place(split: tuple[dict[str, str], dict[str, str]]) -> None:
    asked = read_asked(*split)
    assert (asked.patient_id, asked.visit_type, asked.notes) == ("p", "follow-up", "n")


def test_some_here_and_some_there() -> None:
    asked = read_asked({"patient_id": "p", "visit_type": ""}, {"visit_type": "post-treatment", "notes": ""})
    assert (asked.patient_id, asked.visit_type, asked.notes) == ("p", "post-treatment", None)


@pytest.mark.parametrize("name", WHOLE)
def test_two_different_words_are_refused(name: str) -> None:
    with pytest.raises(Conflict, match=name):
        read_asked(WHOLE, {name: "pre-treatment"})


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ({}, ["patient_id", "visit_type"]),
        ({"patient_id": "", "visit_type": ""}, ["patient_id", "visit_type"]),
        ({"patient_id": "p", "visit_type": "Follow-Up"}, ["visit_type"]),
        ({**WHOLE, "notes": "x" * 20_001}, ["notes"]),
    ],
)
def test_what_is_wrong_is_named(form: dict[str, str], wrong: list[str]) -> None:
    with pytest.raises(RequestValidationError) as caught:
        read_asked({}, form)
    assert [item["loc"][-1] for item in caught.value.errors()] == wrong
