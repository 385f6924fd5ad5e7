"""Labels of images that the base has: what stays, what is corrected, and what follows its readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.sources.review_export import Export, ReviewLabel
from data.sources.review_plan import make_plan
from data.sources.review_rows import BaseRow
from data.sources.review_rules import Rules
from tests.review_exports import Exported, outcomes, picture
from tests.unit.data.sources.review_versions import add, content, hash_of, opposite, some


def test_a_label_that_the_base_has_is_listed_and_taken_only_when_asked(base: Dataset, tmp_path: Path) -> None:
    made, row = Exported(), some(base, "train")
    sha256 = made.label(content(base, row), opposite(row))
    same = some(base, "val")
    agreed = made.label(content(base, same), same["label.grade"])
    plain = add(base, made, tmp_path / "plain")
    assert outcomes(plain.info["review"][0]) == {sha256: "differs", agreed: "same"}
    assert plain.digest == base.digest
    told = add(base, made, tmp_path / "told", "&correct=yes")
    frame = told.frame().set_index("id")
    assert frame.loc[row["id"], "label.grade"] == opposite(row)
    (case,) = [case for case in told.info["review"][0]["cases"] if case["row"] == row["id"]]
    assert (case["labels"]["grade"]["outcome"], case["labels"]["grade"]["was"]) == (
        "corrected",
        row["label.grade"],
    )


def test_a_test_label_is_frozen_even_where_labels_are_corrected(base: Dataset, tmp_path: Path) -> None:
    made, row = Exported(), some(base, "test")
    sha256 = made.label(content(base, row), opposite(row))
    frozen = add(base, made, tmp_path / "frozen", "&correct=yes")
    assert outcomes(frozen.info["review"][0])[sha256] == "frozen"
    assert frozen.test_digest == base.test_digest
    changed = add(base, made, tmp_path / "changed", "&correct=yes&extend_test=yes")
    assert outcomes(changed.info["review"][0])[sha256] == "corrected"
    assert changed.test_digest != base.test_digest


def test_a_head_without_a_label_is_completed(base: Dataset, tmp_path: Path) -> None:
    frame = base.split("train")
    row = frame[frame["label.side"].isna()].iloc[0]
    made = Exported()
    sha256 = made.label(content(base, row), "left", head="side")
    found = add(base, made, tmp_path)
    assert outcomes(found.info["review"][0], "side")[sha256] == "completed"
    assert found.frame().set_index("id").loc[row["id"], "label.side"] == "left"


def test_what_cannot_be_graded_is_no_image_and_takes_a_label_away_when_asked(
    base: Dataset, tmp_path: Path
) -> None:
    frame = base.split("train")
    row = frame[frame["label.side"].isna()].iloc[0]
    made = Exported()
    new = made.label(picture(1), None)
    old = made.label(content(base, row), None)
    plain = add(base, made, tmp_path / "plain")
    assert outcomes(plain.info["review"][0]) == {new: "cannot_grade", old: "differs"}
    assert plain.digest == base.digest
    told = add(base, made, tmp_path / "told", "&correct=yes")
    assert outcomes(told.info["review"][0])[old] == "unlabelled"
    assert row["id"] not in set(told.frame()["id"])  # no label of it is left


def test_a_label_from_review_follows_what_its_readers_say(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    sent = [made.label(picture(i), "low", group=f"p{i}") for i in range(40)]
    for number in range(10):
        made.label(picture(number), "left", head="side")
    first = add(base, made, tmp_path / "first", "&extend_test=yes")
    where = first.frame().set_index("id")["split"]
    learned = [sha256 for sha256 in sent if where[f"review/{sha256}"] == "train"]
    tested = [sha256 for sha256 in sent[10:] if where[f"review/{sha256}"] == "test"]
    half, changed, back, kept, frozen = learned[0], learned[-2], learned[-1], tested[0], tested[1]
    for line in made.lines:
        if line["sha256"] in (changed, kept):
            line["value"] = "high"
    for sha256 in (back, half, frozen):
        made.take_back(sha256)
    second = add(first, made, tmp_path / "second")
    rows = second.frame().set_index("id")
    assert rows.loc[f"review/{changed}", "label.grade"] == "high"
    assert f"review/{back}" not in rows.index
    assert rows.loc[f"review/{half}", "label.side"] == "left"
    assert rows.loc[f"review/{half}", "label.grade"] is None
    # The frozen test is left as it is.
    assert list(rows.loc[[f"review/{kept}", f"review/{frozen}"], "label.grade"]) == ["low", "low"]
    told = outcomes(second.info["review"][1])
    assert [told[each] for each in (changed, back, half, kept, frozen)] == [
        "changed", "withdrawn", "withdrawn", "frozen", "frozen",
    ]  # fmt: skip
    assert second.test_digest == first.test_digest
    # Said again, it is done; a person who extends the test has it follow too.
    assert add(second, made, tmp_path / "third").digest == second.digest
    longer = add(second, made, tmp_path / "fourth", "&extend_test=yes").frame().set_index("id")
    assert longer.loc[f"review/{kept}", "label.grade"] == "high"
    assert f"review/{frozen}" not in longer.index


def test_another_tenant_takes_nothing_back(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    ours, both = made.label(picture(1), "low"), made.label(picture(2), "low")
    first = add(base, made, tmp_path / "first")
    theirs = Exported(info={"tenant": "another"})
    theirs.label(picture(1), "high")
    theirs.label(picture(2), "low")
    second = add(first, theirs, tmp_path / "second")
    assert outcomes(second.info["review"][1]) == {ours: "differs", both: "same"}
    theirs.take_back(ours)
    third = add(second, theirs, tmp_path / "third")
    assert third.digest == first.digest
    # What two have labelled, one alone does not take back.
    made.take_back(both)
    assert add(third, made, tmp_path / "fourth").digest == first.digest
    # Labels that aged out of the gateway were not taken back.
    assert add(third, Exported(), tmp_path / "fifth").digest == first.digest


def test_of_one_content_twice_a_label_that_is_there_stays() -> None:
    """A row without a label, one with another: nothing is overwritten, and the two don't contradict."""
    sha256 = hash_of("x")

    def outcome(value: str, rules: Rules) -> tuple[Any, str]:
        rows = [
            BaseRow("1", sha256, "", "train", "g", {"grade": None}),
            BaseRow("2", sha256, "", "train", "g", {"grade": "low"}),
        ]
        label = ReviewLabel(
            1, sha256, "", "tiny", "grade", value, None, "eve", "2026-11-20T10:00:00+00:00", False
        )
        export = Export(Path(), "tiny", "", "clinic", (label,), frozenset(), "")
        plan = make_plan(rows, export, {sha256: sha256}, rules)
        assert [row.labels["grade"] for row in rows][1] in ("low", value)
        return plan.changes, plan.cases[0]["labels"]["grade"]["outcome"]

    assert outcome("high", Rules()) == ({}, "differs")
    assert outcome("high", Rules(correct=True)) == (
        {"1": {"grade": "high"}, "2": {"grade": "high"}},
        "corrected",
    )
    assert outcome("low", Rules()) == ({"1": {"grade": "low"}, "2": {"grade": "low"}}, "completed")
