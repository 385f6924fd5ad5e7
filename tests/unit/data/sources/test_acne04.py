"""ACNE04: everybody has acne. A severity is never taken for a class's index."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset import Head
from data.errors import SourceError
from data.sources import open_source

ACNE = Head("acne", ("no_acne", "acne"))
CONDITION = Head("condition", ("normal", "acne", "rosacea", "eczema", "pigmentation"))
PROFILE = Head("condition", ("healthy", "mild_acne", "severe_acne", "eczema", "psoriasis"))
SEVERITY = Head("severity", ("mild", "moderate", "severe", "very_severe"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One photograph of each severity, one of them exported twice."""
    (tmp_path / "images").mkdir()
    rows = ["image_name,severity"]
    names = [
        "levle0_1_jpg.rf.aa",
        "levle0_1_jpg.rf.bb",
        "levle1_7_jpg.rf.cc",
        "levle2_8_jpg.rf.dd",
        "levle3_9_jpg.rf.ee",
    ]
    for index, name in enumerate(names):
        pixels = np.full((80, 80, 3), 90 + 20 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg")
        rows.append(f"{name}.jpg,{name[5]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def labels(folder: Path, *heads: Head, options: str = "") -> list[dict[str, object]]:
    return [dict(each.labels) for each in open_source(f"acne04:{folder}{options}").samples(heads)]


def test_mild_is_acne_and_never_no_acne(folder: Path) -> None:
    assert [each["acne"] for each in labels(folder, ACNE)] == ["acne"] * 5
    assert [each["condition"] for each in labels(folder, CONDITION)] == ["acne"] * 5


def test_severities_keep_their_names(folder: Path) -> None:
    found = [each["severity"] for each in labels(folder, SEVERITY)]
    assert found == ["mild", "mild", "moderate", "severe", "very_severe"]


def test_moderate_is_neither_mild_nor_severe_unless_somebody_says_so(folder: Path) -> None:
    mild, severe = ["mild_acne"] * 2, ["severe_acne"] * 2
    assert [each["condition"] for each in labels(folder, PROFILE)] == [*mild, *severe]
    said = labels(folder, PROFILE, options="?moderate=severe_acne")
    assert [each["condition"] for each in said] == [*mild, "severe_acne", *severe]
    # With a head that knows it, the photograph stays, labelled for that head alone.
    both = labels(folder, SEVERITY, PROFILE)
    assert both[2] == {"severity": "moderate", "condition": None}


def test_copies_of_one_photograph_stay_together(folder: Path) -> None:
    groups = [each.group for each in open_source(f"acne04:{folder}").samples((ACNE,))]
    assert groups[0] == groups[1] == "levle0_1"
    assert len(set(groups)) == 4


def test_heads_without_a_class_for_acne_are_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match="none of the heads has a class that says so"):
        labels(folder, Head("side", ("left", "right")))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("levle9_1_jpg.rf.zz.jpg,4", "unknown severity in 1 row"),
        ("gone.jpg,1", "not there: line 7 \\(gone.jpg\\)"),
        ("levle0_1_jpg.rf.aa.jpg,0", "names 1 image\\(s\\) twice"),
    ],
)
def test_faulty_rows_are_named(folder: Path, row: str, told: str) -> None:
    table = folder / "labels.csv"
    table.write_text(table.read_text() + row + "\n")
    with pytest.raises(SourceError, match=told):
        labels(folder, ACNE)


def test_the_real_photographs(shared_data: Path) -> None:
    source = open_source(f"acne04:{shared_data / 'acne04_640'}")
    samples = list(source.samples((ACNE, SEVERITY)))
    assert Counter(each.labels["acne"] for each in samples) == {"acne": 172}
    severities = Counter(each.labels["severity"] for each in samples)
    assert severities == {"mild": 63, "moderate": 76, "severe": 17, "very_severe": 16}
    assert source.skin == "centre"
