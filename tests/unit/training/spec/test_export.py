from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from data.errors import TaskError
from training.spec.export import PRECISIONS, ExportSpec
from training.task import load_task, task_from_dict

SMALL = {"name": "side", "title": "Side", "heads": {"side": {"classes": ["left", "right"]}}}


def test_without_a_word_only_fp32_is_built() -> None:
    assert task_from_dict(SMALL).export == ExportSpec(("fp32",))


def test_the_names_are_those_that_the_field_takes() -> None:
    literal, _ = get_args(get_type_hints(ExportSpec)["precisions"])
    assert get_args(literal) == PRECISIONS


def test_written_and_read_again_it_is_the_same() -> None:
    task = task_from_dict({**SMALL, "export": {"precisions": ["fp32", "int8"], "loss": 0.02}})
    assert task_from_dict(task.to_dict()).export == task.export


def test_what_is_built_is_part_of_the_digest_but_not_of_the_training() -> None:
    one = load_task("dr_grading", overrides={"export.precisions": ["fp32"]})
    other = load_task("dr_grading", overrides={"export.precisions": ["fp32", "int8", "tflite"]})
    assert one.digest != other.digest
    assert one.training_digest == other.training_digest


@pytest.mark.parametrize(
    ("export", "says"),
    [
        ({"precisions": ["int8"]}, "lacks fp32"),
        ({"precisions": ["fp32", "int8", "int8"]}, "twice"),
        ({"precisions": ["fp32", "int9"]}, "int9"),
        ({"loss": 2}, "from 0 to 1"),
        ({"precision": ["fp32"]}, "precisions"),
    ],
)
def test_what_makes_no_sense_is_named(export: dict[str, object], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        task_from_dict({**SMALL, "export": export})
