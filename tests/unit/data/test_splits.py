from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset import Head
from data.errors import DatasetError, UsageError
from data.splits import Rule, assign, join_groups

HEAD = Head("grade", ("a", "b", "c"))

# Few groups and images, so that groups do share images and do come together.
ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 60), st.sampled_from([*HEAD.classes, None])),
    min_size=1,
    max_size=80,
)
RULES = st.sampled_from([None, "stratified:0", "stratified:7", "fold:0/3", "fold:2/3"])


def frame(rows: list[tuple[int, int, str | None]], split: list[str | None] | None = None) -> pd.DataFrame:
    made = pd.DataFrame(
        {
            "group": [f"g{group}" for group, _, _ in rows],
            "sha256": [f"{image:064x}" for _, image, _ in rows],
            "label.grade": [label for _, _, label in rows],
        }
    )
    if split is not None:
        made["split"] = split
    return made


@settings(max_examples=200, deadline=None)
@given(ROWS, RULES, st.randoms(use_true_random=False))
def test_no_image_and_no_group_is_in_two_splits_whatever_the_order(rows, rule, random) -> None:  # type: ignore[no-untyped-def]
    data = frame(rows)
    try:
        made = assign(data, [HEAD], rule=rule)
    except DatasetError:  # a fold without any group
        assert rule
        assert rule.startswith("fold")
        return
    data["split"], data["joined"] = made.split, made.group
    assert set(data["split"]) <= {"train", "val", "test"}
    for column in ("group", "sha256", "joined"):
        assert data.groupby(column)["split"].nunique().max() == 1

    order = list(range(len(rows)))
    random.shuffle(order)
    again = assign(frame([rows[i] for i in order]), [HEAD], rule=rule)
    assert [made.split[i] for i in order] == again.split
    assert [made.group[i] for i in order] == again.group


def test_shares_and_classes_come_out_as_asked() -> None:
    rows = [(i, i, HEAD.classes[min(2, i % 10 // 4)]) for i in range(2000)]  # 40 %, 40 %, 20 %
    made = assign(frame(rows), [HEAD])
    data = frame(rows).assign(split=made.split)
    shares = data["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.20, abs=0.005)
    assert shares["val"] == pytest.approx(0.15, abs=0.005)
    for _, part in data.groupby("split"):
        assert part["label.grade"].value_counts(normalize=True)["c"] == pytest.approx(0.2, abs=0.005)


def test_three_groups_of_a_rare_class_reach_all_three_splits() -> None:
    rows = [(i, i, "a") for i in range(300)] + [(900 + i, 900 + i, "c") for i in range(3)]
    made = assign(frame(rows), [HEAD])
    assert set(made.split[-3:]) == {"train", "val", "test"}


def test_another_seed_is_another_cut() -> None:
    data = frame([(i, i, "a") for i in range(100)])
    assert assign(data, [HEAD], rule="stratified:1").split != assign(data, [HEAD], rule="stratified:2").split
    assert assign(data, [HEAD], rule="stratified").split == assign(data, [HEAD], rule="stratified:0").split


def test_folds_are_disjoint_and_together_everything() -> None:
    data = frame([(i % 70, i, "abc"[i % 3]) for i in range(200)])
    tests = [
        {i for i, s in enumerate(assign(data, [HEAD], rule=f"fold:{k}/5").split) if s == "test"}
        for k in range(5)
    ]
    assert set.union(*tests) == set(range(200))
    assert sum(map(len, tests)) == 200


def test_fold_needs_groups_on_both_sides() -> None:
    with pytest.raises(DatasetError, match="empty"):
        assign(frame([(1, 1, "a")]), [HEAD], rule="fold:0/2")


def test_given_splits_are_kept_to_the_row() -> None:
    given = ["train", "val", "test"] * 10
    made = assign(frame([(i, i, "a") for i in range(30)], given), [HEAD], rule="stratified:3")
    assert made.split == given
    assert made.rule == "given"


def test_given_splits_are_kept_even_where_they_spread_a_group() -> None:
    given = ["train", "val", "test"] * 10
    made = assign(frame([(i // 2, i, "a") for i in range(30)], given), [HEAD])
    assert made.split == given


def test_a_missing_test_is_cut_from_train_by_group_and_told() -> None:
    rows = [(i // 2, i, "abc"[i // 2 % 3]) for i in range(120)]
    given = ["train"] * 100 + ["val"] * 20
    made = assign(frame(rows, list(given)), [HEAD])
    assert made.split[100:] == ["val"] * 20
    assert made.split.count("test") == pytest.approx(20, abs=2)
    assert frame(rows).assign(split=made.split).groupby("group")["split"].nunique().max() == 1
    assert made.rule == "given train/val; test cut from train by group, stratified:0"


def test_a_missing_validation_is_cut_from_train() -> None:
    made = assign(frame([(i, i, "a") for i in range(100)], ["train"] * 80 + ["test"] * 20), [HEAD])
    assert made.split[80:] == ["test"] * 20
    assert made.split.count("val") == 12


def test_cutting_never_spreads_a_group_that_the_source_spread() -> None:
    rows = [(0, 0, "a"), (0, 1, "a"), *[(i, i, "a") for i in range(2, 60)]]
    made = assign(frame(rows, ["val", *["train"] * 59]), [HEAD])
    assert made.split[:2] == ["val", "train"]


def test_a_set_for_testing_only_stays_one() -> None:
    assert set(assign(frame([(i, i, "a") for i in range(5)], ["test"] * 5), [HEAD]).split) == {"test"}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train", None], "1 of 2"),
        (["train", "dev"], "Unknown split dev"),
        (["val", "test"], "none of its images"),
    ],
)
def test_splits_that_make_no_sense_are_refused(split: list[str | None], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        assign(frame([(0, 0, "a"), (1, 1, "a")], split), [HEAD])


def test_nothing_to_split() -> None:
    with pytest.raises(DatasetError, match="nothing to split"):
        assign(frame([]), [HEAD])


@pytest.mark.parametrize("text", ["random", "fold:3/3", "fold:0/1", "fold:a/b", "stratified:-1", ""])
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Rule.parse(text)


def test_groups_that_share_an_image_are_joined_through_chains() -> None:
    assert join_groups(["c", "b", "b", "a", "z"], ["1", "1", "2", "2", "3"]) == ["a", "a", "a", "a", "z"]


def test_no_version_of_ours_or_of_a_library_moves_a_split() -> None:
    """Written down once: published figures stand on these cuts."""
    rows = [(i // 2, i, "abc"[i // 2 % 3]) for i in range(24)]
    letters = {"train": "r", "val": "a", "test": "e"}
    for rule, wanted in (("stratified:0", "errrarrraaee"), ("fold:1/4", "arereererraa")):
        made = assign(frame(rows), [HEAD], rule=rule)
        assert "".join(letters[split] for split in made.split[::2]) == wanted
