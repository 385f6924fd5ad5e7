from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.checks import CheckReport, Finding, check, require
from data.dataset import Dataset
from data.errors import CheckFailed
from data.files import read_json, write_json
from tests.unit.data import layouts
from tests.unit.data.layouts import GRADE, labels_flat, make, picture


@pytest.fixture
def good(tmp_path: Path) -> Dataset:
    return make(
        labels_flat(tmp_path / "source", [(f"{i}.jpg", i % 5) for i in range(30)]), (GRADE,), tmp_path
    )


def codes(findings: tuple[Finding, ...]) -> set[str]:
    return {each.check for each in findings}


def test_a_good_dataset_passes_every_rule(good: Dataset) -> None:
    report = check(good)
    assert report.passed
    require(report)
    assert set(report.checked) == {
        "schema",
        "label_domain",
        "duplicates_across_splits",
        "groups_across_splits",
        "duplicates",
        "conflicting_labels",
        "near_duplicates",
        "files",
        "size",
        "sharpness",
        "exposure",
        "class_counts",
        "decodable",
    }
    assert report.gx["images"]["success"]


def edit(dataset: Dataset, column: str, row: int, value: object) -> Dataset:
    frame = dataset.frame()
    frame[column] = [value if i == row else old for i, old in enumerate(frame[column])]
    frame.to_parquet(dataset.root / "manifest.parquet")
    return Dataset.open(dataset.root)


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("label.grade", "worse", "label_domain"),
        ("label.grade", None, "label_domain"),
        ("split", "dev", "schema"),
        ("sha256", "abc", "schema"),
        ("sharpness", None, "schema"),
        ("width", 10, "size"),
    ],
)
def test_a_bad_cell_fails_and_is_named(good: Dataset, column: str, value: object, code: str) -> None:
    name = good.frame()["id"][3]
    report = check(edit(good, column, 3, value), files=False)
    assert code in codes(report.failures)
    assert any(
        row.startswith(f"{name}:") for each in report.failures if each.check == code for row in each.rows
    )
    with pytest.raises(CheckFailed) as caught:
        require(report)
    assert any(row.startswith(f"{code}: {name}:") for row in caught.value.rows)


def test_ids_that_come_twice(good: Dataset) -> None:
    report = check(edit(good, "id", 3, good.frame()["id"][4]), files=False)
    assert [each.message for each in report.failures] == ["Ids come twice."]


def test_a_lost_column(good: Dataset) -> None:
    good.frame().drop(columns=["phash", "label.grade"]).to_parquet(good.root / "manifest.parquet")
    report = check(good)
    messages = {each.message for each in report.failures}
    assert {"The manifest has no column phash.", "The manifest has no column label.grade."} <= messages


def test_missing_and_altered_files(good: Dataset) -> None:
    frame = good.frame()
    good.image_path(frame["path"][0]).unlink()
    altered = good.image_path(frame["path"][1])
    altered.unlink()
    altered.write_bytes(picture(40))
    report = check(good)
    [finding] = report.failures
    assert finding.check == "files"
    assert finding.rows == (
        f"{frame['id'][0]}: {frame['path'][0]} is missing",
        f"{frame['id'][1]}: {frame['path'][1]} was altered",
    )
    assert check(good, files=False).passed


def test_duplicates_with_two_labels_in_one_split_warn(tmp_path: Path) -> None:
    spec = labels_flat(tmp_path / "s", [(f"{i}.jpg", i % 5) for i in range(30)])
    (tmp_path / "s/images/7.jpg").write_bytes(picture(5))
    report = check(make(spec, (GRADE,), tmp_path))
    assert report.passed
    by_code = {each.check: each for each in report.warnings}
    assert by_code["duplicates"].count == 2
    assert by_code["duplicates"].images == (("5", "7"),)
    assert "labelled moderate and no_dr" in by_code["conflicting_labels"].rows[0]


def test_near_duplicates_across_splits_warn_in_pairs(tmp_path: Path) -> None:
    import io

    from PIL import Image

    spec = layouts.labels(tmp_path / "s")
    Image.open(io.BytesIO(picture(0))).save(tmp_path / "s/val/images/val0.jpg", quality=70)
    report = check(make(spec, (GRADE,), tmp_path))
    assert report.passed
    [finding] = [each for each in report.warnings if each.check == "near_duplicates"]
    assert any("looks like" in row for row in finding.rows)
    assert ("val/val0", "train/train0") in {tuple(sorted(pair, reverse=True)) for pair in finding.images}


def test_a_class_only_outside_train_fails_and_one_missing_in_test_warns(good: Dataset) -> None:
    frame = good.frame()
    frame.loc[frame["label.grade"] == "mild", "split"] = "test"
    frame.loc[(frame["label.grade"] == "severe") & (frame["split"] == "test"), "split"] = "train"
    frame.to_parquet(good.root / "manifest.parquet")
    report = check(good, files=False)
    assert [(each.check, each.rows) for each in report.failures] == [
        ("class_counts", ("grade=mild in train",))
    ]
    rows = {row for each in report.warnings for row in each.rows}
    assert {"grade=mild in val", "grade=severe in test"} <= rows


def test_a_set_for_testing_only_needs_no_train(tmp_path: Path) -> None:
    spec = layouts.messidor2(tmp_path / "m", 30) + "?split=test"
    assert check(make(spec, (GRADE,), tmp_path)).passed


def test_a_few_dark_images_warn_and_mostly_dark_ones_fail(good: Dataset) -> None:
    assert codes(check(edit(good, "exposure", 3, 1.0), files=False).warnings) == {"exposure"}
    frame = good.frame()
    frame["exposure"] = np.where(np.arange(len(frame)) < 20, 1.0, 90.0)
    frame.to_parquet(good.root / "manifest.parquet")
    report = check(good, files=False)
    assert codes(report.failures) == {"exposure"}
    assert "most of them" in report.failures[0].message


def test_the_report_needs_nothing_from_outside(tmp_path: Path) -> None:
    spec = labels_flat(tmp_path / "s", [(f"{i}.jpg", i % 5) for i in range(30)])
    (tmp_path / "s/images/4.jpg").write_bytes(b"<script>alert(1)</script>")
    (tmp_path / "s/images/7.jpg").write_bytes(picture(5))
    report = check(make(spec + "&licence=<b>", (GRADE,), tmp_path))
    page = report.write_report(tmp_path / "report")
    text = page.read_text()
    assert not re.findall(r"//|url\(|href|@import", re.sub(r"data:image/jpeg;base64,[^\"]*", "", text))
    assert "<script" not in text
    assert "&lt;b&gt;" in text
    assert text.count('src="data:image/jpeg;base64,') >= 15
    assert 'src="data:,"' not in text
    for words in ("failed", "decodable", "proliferative", "median sharpness", "5 (", "same image as"):
        assert words in text
    told = read_json(tmp_path / "report/report.json")
    assert told["passed"] is False
    assert told["failures"][0]["check"] == "decodable"
    assert told["dataset"]["licence"] == "<b>"
    assert read_json(tmp_path / "report/gx.json")["rejected"]["success"] is False


def test_require_names_every_failure() -> None:
    finding = Finding("size", "failure", "Too small.", 8, tuple(f"image{i}" for i in range(8)))
    report = CheckReport(Dataset(Path(), {"digest": "d"}), ("size",), (finding,), ())
    with pytest.raises(CheckFailed) as caught:
        require(report)
    assert len(caught.value.rows) == 8
    assert "image4; …" in str(caught.value)
    assert json.dumps(report.to_dict())


def test_great_expectations_is_imported_only_when_it_checks() -> None:
    slow = "{'great_expectations', 'pandas'}"
    code = f"import sys, data.checks, data.cli; sys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dataset_without_its_profile_is_still_checked(good: Dataset) -> None:
    info = read_json(good.root / "dataset.json")
    write_json(good.root / "dataset.json", {key: value for key, value in info.items() if key != "quality"})
    assert check(Dataset.open(good.root)).passed
