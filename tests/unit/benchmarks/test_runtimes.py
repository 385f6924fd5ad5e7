from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.precisions import _flat, _on_test
from benchmarks.runtimes import measure, photographs, write


def test_contenders_are_timed_as_often_as_asked() -> None:
    calls: list[str] = []
    work = {("a", "fp32"): lambda: calls.append("a"), ("b", "int8"): lambda: calls.append("b")}
    times = measure(work, 5)
    assert {key: len(found) for key, found in times.items()} == {("a", "fp32"): 5, ("b", "int8"): 5}
    assert calls.count("a") == calls.count("b") == 15
    assert "".join(calls) not in ("ab" * 15, "ba" * 15)


def test_images_are_photographs_of_a_folder_or_drawn(tmp_path: Path) -> None:
    for i in range(3):
        picture = np.full((40, 60, 3), 40 * i, np.uint8)
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    found, named = photographs(tmp_path, 3)
    assert (found.shape, found.dtype, named) == ((3, 224, 224, 3), np.uint8, tmp_path.name)
    assert len(np.unique(found.mean(axis=(1, 2, 3)))) == 3
    drawn, named = photographs(None, 2)
    assert (drawn.shape, named) == ((2, 224, 224, 3), "drawn")
    with pytest.raises(SystemExit, match="3 photographs; 4 are needed"):
        photographs(tmp_path, 4)


def test_rows_that_were_left_out_are_written_too(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "date": "2025-01-01",
        "hardware": {"cpu": "x", "cores": 2},
        "versions": {"python": "3"},
        "settings": {"rounds": 1, "threads": 2, "images": "drawn"},
        "rows": [
            {"backbone": "a", "runtime": "tflite", "precision": "tflite", "median_ms": 1.0},
            {"backbone": "a", "runtime": "openvino", "precision": "bf16", "note": "no bfloat16"},
        ],
    }
    write(document, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == document
    with (tmp_path / "out.csv").open(newline="") as stream:
        one, other = csv.DictReader(stream)
    assert (one["median_ms"], one["note"], one["cpu"]) == ("1.0", "", "x")
    assert (other["median_ms"], other["note"]) == ("", "no bfloat16")


@pytest.mark.parametrize(("loss", "fine"), [(0.01, True), (-0.2, True), (0.0101, False), (None, False)])
def test_test_images_have_their_say(loss: float | None, fine: bool) -> None:
    assert (_on_test({"loss": loss}, 0.01) is None) is fine


def test_of_several_heads_the_row_shows_the_worst() -> None:
    split = {
        "images": 10,
        "heads": {
            "a": {"fp32": 0.9, "value": 0.89, "loss": 0.01},
            "b": {"fp32": 0.8, "value": 0.7, "loss": 0.1},
            "c": {"fp32": None, "value": None, "loss": None},
        },
        "max_difference": 0.2,
        "labels_changed": 0.1,
    }
    document = {"task": "t", "source": "s", "metric": "auc", "allowed": 0.01, "hardware": {"cpu": "x"}}
    document |= {"versions": {}, "date": "d"}  # type: ignore[dict-item]
    item = {"precision": "int8", "runtime": "r", "bytes": 1, "passed": False, "reason": "why"}
    found = _flat(document, {**item, "val": split, "test": split})
    assert (found["val_head"], found["val_fp32"], found["val"], found["test_loss"]) == ("b", 0.8, 0.7, 0.1)
    assert found["median_ms"] is None
