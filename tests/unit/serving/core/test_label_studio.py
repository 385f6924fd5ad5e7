"""A batch to Label Studio and back, on its JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from data.errors import RequestError, UsageError
from serving.core.label_studio import (
    CANNOT_GRADE,
    COMMENT,
    Answer,
    Choice,
    Question,
    answers,
    config,
    data_url,
    local_url,
    read,
    tasks,
)

GRADE = Choice("grade", ("none", "mild", "severe"), ("No <DR>", "Mild & early", "Severe"), "Grade")
SIDE = Choice("side", ("left", "right"))
CHOICES = [GRADE, SIDE]
KNOWN = {"c1", "c2", "c3"}
PROBABILITIES = {"grade": {"none": 0.2, "mild": 0.5, "severe": 0.3}, "side": {"left": 0.9, "right": 0.1}}


def batch() -> list[dict[str, Any]]:
    questions = [
        Question("c1", data_url(b"picture", "image/png"), PROBABILITIES, "eyes 3", {"reason": "uncertain"}),
        Question("c2", local_url("queue/c 2.png"), {"grade": PROBABILITIES["grade"]}, "eyes 3"),
        Question("c3", "https://gateway.example.org/c3"),
    ]
    return tasks(questions, CHOICES, "eyes")


def result(name: str, choice: str) -> dict[str, Any]:
    return {
        "id": "Dx_aB91ISN",
        "from_name": name,
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": [choice]},
    }


def comment(text: str) -> dict[str, Any]:
    return {"from_name": COMMENT, "to_name": "image", "type": "textarea", "value": {"text": [text]}}


def annotated(
    case: str, *results: dict[str, Any], by: Any = 7, at: str = "2026-11-20T10:00:00.123456Z", **more: Any
) -> dict[str, Any]:
    """A task as Label Studio exports it after one person annotated it."""
    (task,) = [dict(task) for task in batch() if task["data"]["case"] == case]
    return {
        **json.loads(json.dumps(task)),
        "id": 101,
        "inner_id": 1,
        "project": 3,
        "total_annotations": 1,
        "drafts": [],
        "meta": {},
        "annotations": [
            {
                "id": 55,
                "completed_by": by,
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2026-11-20T09:00:00.000000Z",
                "updated_at": at,
                "lead_time": 4.2,
                "unique_id": "0a4f",
                "result": list(results),
                **more,
            }
        ],
    }


def test_tasks_carry_the_models_answers() -> None:
    first, second, third = batch()
    assert first["data"] == {
        "reason": "uncertain",
        "case": "c1",
        "task": "eyes",
        "image": f"data:image/png;base64,{base64.b64encode(b'picture').decode()}",
    }
    (prediction,) = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("eyes 3", 0.5)
    assert [(each["from_name"], each["value"]["choices"]) for each in prediction["result"]] == [
        ("grade", ["mild"]),
        ("side", ["left"]),
    ]
    assert second["data"]["image"] == "/data/local-files/?d=queue/c%202.png"
    assert [each["from_name"] for each in second["predictions"][0]["result"]] == ["grade"]
    assert third["predictions"] == []
    assert batch() == batch()


def test_the_interface_has_a_control_for_each_head() -> None:
    view = ElementTree.fromstring(config(CHOICES))
    controls = {control.get("name"): control for control in view.iter("Choices")}
    assert list(controls) == ["grade", "side", CANNOT_GRADE]
    assert [each.get("value") for each in controls["grade"]] == list(GRADE.classes)
    assert [each.get("hint") for each in controls["grade"]] == list(GRADE.titles)
    assert all(control.get("toName") == "image" for control in controls.values())
    (picture,) = view.iter("Image")
    assert picture.get("value") == "$image"


def test_there_and_back() -> None:
    """Every prediction is accepted as it is: the labels that come back are the model's."""
    exported = []
    for task in batch()[:2]:
        results = [{**each, "origin": "prediction"} for each in task["predictions"][0]["result"]]
        exported.append(annotated(task["data"]["case"], *results, by={"id": 7, "email": "anna@example.org"}))
    found = answers(
        read(json.dumps(exported).encode()),
        CHOICES,
        KNOWN,
        task="eyes",
        readers={"anna@example.org": "anna"},
    )
    at = "2026-11-20T10:00:00.123456+00:00"
    assert found.answers == (
        Answer("c1", "grade", "mild", None, "anna", at),
        Answer("c1", "side", "left", None, "anna", at),
        Answer("c2", "grade", "mild", None, "anna", at),
    )
    assert found.skipped == ()


def test_what_cannot_be_graded_is_said_of_each_head_without_a_class() -> None:
    exported = [
        annotated("c1", result("side", "left"), result(CANNOT_GRADE, "blurred"), comment(" no focus "))
    ]
    grade, side = answers(exported, CHOICES, KNOWN, task="eyes").answers
    assert (grade.head, grade.value, grade.cannot_grade) == ("grade", None, "blurred")
    assert (side.value, side.cannot_grade, side.comment) == ("left", None, "no focus")
    assert side.reader == "label_studio:7"


def test_cancelled_and_empty_annotations_are_told_and_the_newer_counts() -> None:
    twice = annotated("c1", result("grade", "none"), at="2026-11-20T11:00:00Z")
    twice["annotations"] += [
        annotated("c1", result("grade", "severe"), at="2026-11-20T12:00:00Z")["annotations"][0],
        annotated("c1", result("grade", "mild"), by=8)["annotations"][0],
    ]
    cancelled = annotated("c2", was_cancelled=True)
    empty = annotated("c3", comment("nothing to say"))
    found = answers([twice, cancelled, empty], CHOICES, KNOWN, task="eyes")
    assert [(each.reader, each.value) for each in found.answers] == [
        ("label_studio:7", "severe"),
        ("label_studio:8", "mild"),
    ]
    assert found.skipped == ("c2: skipped by label_studio:7", "c3: nothing was said by label_studio:7")


def changed(change: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    task = annotated("c1", result("grade", "mild"))
    change(task)
    return [task]


FAULTS: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("unknown", lambda task: task["data"].update(case="gone"), "1 of unknown cases: gone"),
    ("task", lambda task: task["data"].update(task="skin"), r"1 not of the task eyes: c1 \(skin\)"),
    ("foreign", lambda task: task["data"].pop("case"), "without data.case.*: task 2"),
    ("no annotations", lambda task: task.pop("annotations"), "without annotations .*: c1"),
    (
        "class",
        lambda task: task["annotations"][0].update(result=[result("grade", "worst")]),
        "no class 'worst'",
    ),
    ("head", lambda task: task["annotations"][0].update(result=[result("stage", "one")]), "no head stage"),
    (
        "several",
        lambda task: task["annotations"][0]["result"][0]["value"].update(choices=["mild", "none"]),
        "grade needs one choice",
    ),
    (
        "both",
        lambda task: task["annotations"][0].update(
            result=[result("grade", "mild"), result("side", "left"), result(CANNOT_GRADE, "dark")]
        ),
        "gave a class and says that it can't be graded",
    ),
    ("nobody", lambda task: task["annotations"][0].update(completed_by=None), "who made it"),
    ("time", lambda task: task["annotations"][0].update(updated_at="today"), "no time"),
    ("zone", lambda task: task["annotations"][0].update(updated_at="2026-11-20T10:00:00"), "no time zone"),
]


@pytest.mark.parametrize(
    ("change", "message"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_what_is_wrong_is_named_and_nothing_is_imported(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    good = annotated("c2", result("grade", "none"))
    with pytest.raises(RequestError, match=message) as error:
        answers([good, *changed(change)], CHOICES, KNOWN, task="eyes")
    assert error.value.message.startswith("Nothing was imported.")


def test_all_unknown_cases_are_counted() -> None:
    exported = [annotated("c1", result("grade", "mild")) for _ in range(12)]
    for number, task in enumerate(exported):
        task["data"]["case"] = f"old-{number}"
    with pytest.raises(RequestError, match=r"12 of unknown cases: old-0, .*old-9 and 2 more"):
        answers(exported, CHOICES, KNOWN, task="eyes")


@pytest.mark.parametrize("text", [b"{", b'{"tasks": []}', b"\xff\xfe"])
def test_another_document_is_no_export(text: bytes) -> None:
    with pytest.raises(RequestError, match="The annotations are n"):
        read(text)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up.png", ""])
def test_a_file_outside_the_root_has_no_address(path: str) -> None:
    with pytest.raises(UsageError, match="no path below"):
        local_url(path)


@pytest.mark.parametrize("heads", [[], [GRADE, GRADE], [Choice("image", ("a", "b"))]])
def test_heads_that_cannot_be_controls(heads: list[Choice]) -> None:
    with pytest.raises(UsageError, match="can't be controls"):
        config(heads)
