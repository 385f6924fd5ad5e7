"""Patients and cases: which split their images come into, and what is held back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset import Dataset
from data.sources.review_export import Export, ReviewLabel
from data.sources.review_plan import make_plan
from data.sources.review_rows import BaseRow
from data.sources.review_rules import Rules
from tests.review_exports import Exported, outcomes, picture
from tests.unit.data.sources.review_versions import add, content, hash_of, some


def test_a_patient_stays_in_the_split_that_they_are_in(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    places = {}
    for number, split in enumerate(("train", "val", "test")):
        row = some(base, split)
        places[split] = made.label(picture(900 + number), "low", group=row["group"])
    found = add(base, made, tmp_path)
    frame = found.frame().set_index("id")
    assert frame.loc[f"review/{places['train']}", "split"] == "train"
    assert frame.loc[f"review/{places['val']}", "split"] == "val"
    assert f"review/{places['test']}" not in frame.index
    assert outcomes(found.info["review"][0])[places["test"]] == "held_back"
    longer = add(base, made, tmp_path / "longer", "&extend_test=yes")
    assert longer.frame().set_index("id").loc[f"review/{places['test']}", "split"] == "test"
    assert longer.test_digest != base.test_digest
    assert longer.info["review"][0]["test_changed"] is True


def test_a_patient_is_known_by_a_photograph_too(base: Dataset, tmp_path: Path) -> None:
    """The gateway's patient has a photograph that the base tests with: no other of theirs is learned from."""
    made, row = Exported(), some(base, "test")
    made.label(content(base, row), row["label.grade"], group="patient 7")
    other = made.label(picture(77), "low", group="patient 7")
    assert outcomes(add(base, made, tmp_path).info["review"][0])[other] == "held_back"


def test_a_case_is_in_one_split(base: Dataset, tmp_path: Path) -> None:
    """S0's photographs have no patient, but a case."""
    made = Exported()
    for number in range(12):
        made.label(picture(100 + number), "low", case_id="c-1")
    found = add(base, made, tmp_path / "first", "&extend_test=yes")
    new = found.frame()[found.frame()["source"] == "review"]
    assert (new["split"].nunique(), new["group"].nunique()) == (1, 1)
    # Twenty cases of two photographs each, of which the second one comes later, the first one's label gone.
    made, later = Exported(), Exported()
    for number in range(20):
        made.label(
            picture(200 + number), "low", case_id=f"c-{number}", group=f"p{number}" if number % 2 else None
        )
        later.label(picture(300 + number), "low", case_id=f"c-{number}")
    first = add(base, made, tmp_path / "second", "&extend_test=yes")
    assert "test" in set(first.frame()[first.frame()["source"] == "review"]["split"])
    frame = add(first, later, tmp_path / "third").frame()
    assert frame.groupby("group")["split"].nunique().max() == 1
    where = {row["id"]: row["split"] for row in frame.to_dict("records")}
    for one, two in zip(made.lines, later.lines, strict=True):
        split = where[f"review/{one['sha256']}"]
        assert where.get(f"review/{two['sha256']}") == (None if split == "test" else split)


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 8), st.sampled_from(["train", "val", "test"])),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    said=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 14), st.sampled_from(["low", "high", None])),
        min_size=1,
        max_size=25,
        unique_by=lambda each: each[0],
    ),
    extend=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_no_group_is_torn_and_the_frozen_test_part_never_moves(
    rows: list[tuple[int, int, str]],
    said: list[tuple[int, int, str | None]],
    extend: bool,
    order: Any,
) -> None:
    where = {group: split for _, group, split in rows}

    def base() -> list[BaseRow]:
        return [
            BaseRow(f"row {image}", hash_of(str(image)), "", where[group], f"p{group}", {"grade": "low"})
            for image, group, _ in rows
        ]

    labels = [
        ReviewLabel(
            line=number,
            sha256=hash_of(str(image)),
            file=f"images/{hash_of(str(image))}.png",
            task="tiny",
            head="grade",
            value=value,
            cannot_grade=None if value else "dark",
            reader="anna",
            at="2026-11-20T10:00:00+00:00",
            adjudicated=False,
            group=f"p{group}",
        )
        for number, (image, group, value) in enumerate(said, 1)
    ]

    def plan(given: list[ReviewLabel]) -> Any:
        export = Export(Path(), "tiny", "", "", tuple(given), frozenset(), "")
        names = {label.sha256: label.sha256 for label in given}
        return make_plan(base(), export, names, Rules(correct=True, extend_test=extend))

    found = plan(labels)
    shuffled = list(labels)
    order.shuffle(shuffled)
    assert plan(shuffled).new == found.new
    splits: dict[str, set[str]] = {}
    for row in base():
        splits.setdefault(row.group, set()).add(row.split)
    for image in found.new:
        splits.setdefault(image.group, set()).add(image.split)
    assert all(len(each) == 1 for each in splits.values())
    tested = {row.id for row in base() if row.split == "test"}
    if not extend:
        assert all(image.split != "test" for image in found.new)
        assert not tested & (found.changes.keys() | found.dropped.keys())
        assert not found.test_changes
    assert len(found.cases) == len(said)
