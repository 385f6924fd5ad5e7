from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from serving.core.decisions import calibrated
from training.calibrate import calibrate
from training.evaluate import evaluate
from training.evaluate.pictures import NAMES
from training.spec.parts import HeadSpec

GRADE = HeadSpec("grade", ("none", "mild", "severe"), ordinal=True)
SITE = HeadSpec("site", ("left", "right"))


def predictions(n: int = 400, seed: int = 0, stretch: float = 2.0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 5)).astype(np.float32)
    labels = {}
    for name, part in (("grade", slice(0, 3)), ("site", slice(3, 5))):
        chances = calibrated(logits[:, part])
        labels[name] = np.array([rng.choice(len(row), p=row) for row in chances])
    labels["site"][:100] = -1
    return SimpleNamespace(ids=np.array([f"i{k}" for k in range(n)]), logits=logits * stretch, labels=labels)


def frame(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)][::-1],
            "source": "one",
            "verdict": rng.choice(["gradable", "retake"], n, p=[0.8, 0.2]),
            "meta.age": rng.integers(0, 95, n).astype(float),
            "meta.sex": rng.choice(["female", "male", None], n),
            "meta.site": rng.choice(["back", "toe"], n, p=[0.97, 0.03]),
            "meta.lesion_id": [f"l{k}" for k in range(n)],
            "meta.width_mm": rng.normal(5, 2, n),
            "meta.device": "camera",
        }
    )


def evaluated(**given: Any) -> dict[str, Any]:
    return evaluate(predictions(), (GRADE, SITE), bootstrap=50, **given)


def test_the_document_is_plain_json_and_the_same_again() -> None:
    first, again = evaluated(frame=frame()), evaluated(frame=frame())
    assert first == again
    assert json.loads(json.dumps(first, allow_nan=False)) == first


def test_absent_labels_count_for_their_head_alone() -> None:
    heads = evaluated()["heads"]
    assert (heads["grade"]["n"], heads["grade"]["absent"]) == (400, 0)
    assert (heads["site"]["n"], heads["site"]["absent"]) == (300, 100)
    assert sum(sum(row) for row in heads["site"]["confusion"]) == 300


def test_every_figure_has_its_interval() -> None:
    head = evaluated()["heads"]["grade"]
    for name in ("auc", "accuracy", "balanced_accuracy", "kappa", "nll", "ece"):
        figure = head[name]
        assert figure["low"] <= figure["value"] <= figure["high"], name
    assert "kappa" not in evaluated()["heads"]["site"]
    for row in head["classes"].values():
        assert set(row) == {"n", "auc", "sensitivity", "specificity"}


def test_without_resamples_there_are_no_intervals() -> None:
    head = evaluate(predictions(), (GRADE, SITE), bootstrap=0)["heads"]["grade"]
    assert head["auc"]["value"] is not None
    assert head["auc"]["low"] is None


def test_calibration_shows_before_and_after_beside_the_bands() -> None:
    val = predictions(500, seed=5)
    fitted = {
        head.name: calibrate(val.logits[:, part], val.labels[head.name])
        for head, part in ((GRADE, slice(0, 3)), (SITE, slice(3, 5)))
    }
    report = evaluated(calibration=fitted)["heads"]["grade"]
    told = report["calibration"]
    assert told["calibrated"]
    assert told["nll_improved"]
    assert told["nll_after"] < told["nll_before"]
    assert told["ece_after"] < told["ece_before"]
    assert told["ece_inside"]
    assert told["coverage"]["inside"]
    assert told["coverage"]["value"] >= told["coverage"]["conformal"]
    assert told["coverage"]["target"] == 0.9
    assert 0 <= told["uncertain_share"] <= 1
    assert report["nll"]["value"] == told["nll_after"]
    assert report["ece"]["value"] == told["ece_after"]


def test_without_calibration_nothing_is_claimed() -> None:
    told = evaluated()["heads"]["grade"]["calibration"]
    assert not told["calibrated"]
    assert "coverage" not in told
    assert told["nll_before"] == told["nll_after"]


def test_slices_follow_the_columns_and_say_what_they_leave_out() -> None:
    document = evaluated(frame=frame())
    columns = {(item["column"], item["value"]) for item in document["slices"]}
    assert ("age", "20 to under 40") in columns
    assert ("sex", "(missing)") in columns
    assert ("verdict", "retake") in columns
    assert len([value for column, value in columns if column == "width_mm"]) == 4
    left_out = {(item["column"], item.get("value")): item["reason"] for item in document["slices_left_out"]}
    assert "an identifier" in left_out[("lesion_id", None)]
    assert left_out[("device", None)] == "one value only"
    assert "fewer than 30" in left_out[("site", "toe")]
    sizes = [item["n"] for item in document["slices"] if item["column"] == "sex" and item["head"] == "grade"]
    assert sum(sizes) == 400
    assert all(set(item) >= {"auc", "accuracy", "balanced_accuracy", "n"} for item in document["slices"])


def test_images_of_one_group_make_intervals_wider() -> None:
    plain = evaluated(frame=frame())
    said, rows = predictions(), frame()
    rows["group"] = [f"g{int(name[1:]) // 5}" for name in rows["id"]]
    # Every image of a group is answered alike, so that 400 images are worth about 80.
    first = np.arange(400) // 5 * 5
    said.logits, said.labels = said.logits[first], {k: v[first] for k, v in said.labels.items()}
    alone = evaluate(said, (GRADE, SITE), rows.drop(columns="group"), bootstrap=300)
    together = evaluate(said, (GRADE, SITE), rows, bootstrap=300)
    assert plain["interval"]["method"] == alone["interval"]["method"] == "stratified bootstrap"
    assert together["interval"]["method"] == "stratified bootstrap of groups"
    one, other = alone["heads"]["grade"], together["heads"]["grade"]
    assert (one["groups"], other["groups"], other["n"]) == (400, 80, 400)
    assert one["auc"]["value"] == other["auc"]["value"]
    widths = [head["auc"]["high"] - head["auc"]["low"] for head in (one, other)]
    assert widths[1] > 1.6 * widths[0]
    rows["group"] = [None, ""] * 200
    assert evaluate(said, (GRADE, SITE), rows, bootstrap=300)["heads"] == alone["heads"]


def test_only_a_column_of_ages_is_binned_as_ages() -> None:
    numbers = np.arange(400) % 90
    names = ("meta.age", "meta.age_approx", "meta.patientAge", "meta.image_width", "meta.stage")
    rows = frame().assign(**{name: numbers.astype(float) for name in names})
    slices = evaluated(frame=rows)["slices"]
    by_twenty = {item["column"] for item in slices if item["value"] == "20 to under 40"}
    assert by_twenty == {"age", "age_approx", "patientAge"}


def test_slices_find_their_rows_by_id() -> None:
    table = frame()
    # The label itself as a column: a slice by it is all of one class, and is left out for that.
    labels = dict(zip(predictions().ids, predictions().labels["grade"], strict=True))
    table["meta.truth"] = [f"class {labels[item]}" for item in table["id"]]
    left_out = [item for item in evaluated(frame=table)["slices_left_out"] if item["column"] == "truth"]
    grade = [item for item in left_out if item["head"] == "grade"]
    assert {item["reason"] for item in grade} == {"images of one class only"}


def test_unknown_images_and_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="not in the dataset"):
        evaluated(frame=frame().iloc[:300])
    with pytest.raises(DataError, match=r"logits \[400, 5\], the heads 3 classes"):
        evaluate(predictions(), (GRADE,))
    empty = predictions()
    empty.labels["site"][:] = -1
    with pytest.raises(DataError, match="has a label for 'site'"):
        evaluate(empty, (GRADE, SITE))
    with pytest.raises(DataError, match="no calibration for head 'grade'"):
        evaluate(predictions(), (GRADE, SITE), calibration={})


def test_classes_without_images_are_named() -> None:
    few = predictions()
    few.labels["grade"][few.labels["grade"] == 2] = 0
    head = evaluate(few, (GRADE, SITE), bootstrap=10)["heads"]["grade"]
    assert head["without_images"] == ["severe"]
    assert head["classes"]["severe"]["auc"]["value"] is None
    assert head["auc"]["value"] is not None


def test_one_class_alone_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    one = predictions(40)
    one.labels["grade"][:] = 1
    one.labels["site"][:] = 0
    head = evaluate(one, (GRADE, SITE), bootstrap=10, pictures=tmp_path)["heads"]["grade"]
    assert head["auc"] == {"value": None, "low": None, "high": None}
    assert head["accuracy"]["value"] == head["balanced_accuracy"]["value"]
    assert head["n"] == 40


def test_pictures_are_drawn_for_every_head(tmp_path: Path) -> None:
    evaluate(predictions(), (GRADE, SITE), bootstrap=0, pictures=tmp_path / "pictures")
    for name in NAMES:
        picture = cv2.imread(str(tmp_path / "pictures" / name))
        assert picture is not None
        assert picture.std() > 5


def test_a_thousand_resamples_of_a_large_test_are_quick() -> None:
    rng = np.random.default_rng(0)
    head = HeadSpec("d", tuple("abcdefg"))
    many = SimpleNamespace(
        ids=np.arange(1100), logits=rng.normal(size=(1100, 7)), labels={"d": rng.integers(0, 7, 1100)}
    )
    # Processor time: what the clock on the wall says depends on the machine's other work.
    started = time.process_time()
    evaluate(many, (head,), bootstrap=1000)
    assert time.process_time() - started < 20
