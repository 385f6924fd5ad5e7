"""Labels added to a dataset: who goes where, what stays, and what dataset.json says of it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.dataset import Dataset, Head
from data.errors import DatasetError, SourceError
from data.ingest import ingest
from data.sources.review_export import Export, ReviewLabel
from data.sources.review_plan import make_plan
from data.sources.review_rows import BaseRow
from data.sources.review_rules import Rules
from tests.anomaly_bundles import file, surface, with_blot
from tests.anomaly_sets import parts_dataset
from tests.review_exports import Exported, outcomes, picture
from tests.trainings import HEADS, tiny_dataset

CLASSES = [Head(name, tuple(entry["classes"])) for name, entry in HEADS.items()]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("base"), 40)


def add(base: Dataset, export: Exported, folder: Path, options: str = "", **more: Any) -> Dataset:
    """The next version of a dataset."""
    root = export.write(folder / "export")
    return ingest(
        f"review:{root}?base={base.root}{options}",
        base.heads,
        folder / "next",
        task=base.task,
        store=folder / "store",
        **more,
    )


def some(base: Dataset, split: str) -> Any:
    return base.split(split).iloc[0]


def content(base: Dataset, row: Any) -> bytes:
    return base.image_path(row["path"]).read_bytes()


def opposite(row: Any) -> str:
    return "high" if row["label.grade"] != "high" else "low"


def test_new_images_come_in_by_patient_and_the_test_part_stays(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    sent = [made.label(picture(i), ["low", "middle", "high"][i % 3], group=f"p{i // 3}") for i in range(30)]
    found = add(base, made, tmp_path, "&licence=CC0-1.0&forbids=commercial")
    found.verify()
    assert found.test_digest == base.test_digest
    assert found.digest != base.digest
    frame = found.frame().set_index("id")
    new = frame.loc[[f"review/{sha256}" for sha256 in sent]]
    assert set(new["split"]) == {"train", "val"}
    assert new.groupby("group")["split"].nunique().max() == 1
    assert set(new["group"]) == {f"p{i}" for i in range(10)}
    assert (set(new["source"]), set(new["licence"])) == ({"review"}, {"CC0-1.0"})
    assert set(frame.drop(new.index)["source"]) == {"labels"}
    assert (found.info["source"], found.info["forbids"]) == ("labels+review", ["commercial"])
    assert "CC0-1.0" in found.info["licence"]


def test_the_record_names_cases_readers_and_dates(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    image = picture(1)
    sha256 = made.label(image, "low", reader="anna")
    made.label(image, "high", reader="ben")
    made.label(image, "high", reader="chief", adjudicated=True)
    (review,) = add(base, made, tmp_path).info["review"]
    assert review["base"]["digest"] == base.digest
    assert (review["readers"], review["export"]["labels"]) == (["anna", "ben", "chief"], 3)
    assert review["from"] <= review["to"]
    (case,) = review["cases"]
    assert (case["cases"], case["sha256"], case["row"]) == (
        [f"case-{sha256[:6]}"],
        [sha256],
        f"review/{sha256}",
    )
    assert case["labels"]["grade"] == {
        "value": "high",
        "outcome": "added",
        "readers": {"anna": "low", "ben": "high"},
        "decided_by": "chief",
        "at": "2026-11-20T10:00:03+00:00",
    }


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


def test_erased_images_leave_every_split_but_only_what_came_from_review(
    base: Dataset, tmp_path: Path
) -> None:
    made = Exported()
    sent = [made.label(picture(i), "low", group=f"p{i}") for i in range(40)]
    first = add(base, made, tmp_path / "first", "&extend_test=yes")
    where = first.frame().set_index("id")["split"]
    gone = {
        split: next(s for s in sent if where[f"review/{s}"] == split) for split in ("train", "val", "test")
    }
    later, public = Exported(), some(base, "test")
    later.label(picture(50), "low")
    # Somebody sent a picture that the public test set has, and was erased: it was never theirs.
    later.excluded = [*gone.values(), public["sha256"]]
    found = add(first, later, tmp_path / "second")
    assert not {f"review/{sha256}" for sha256 in gone.values()} & set(found.frame()["id"])
    assert public["id"] in set(found.frame()["id"])
    review = found.info["review"][1]
    assert review["counts"]["erased"] == {"train": 1, "val": 1, "test": 1}
    assert review["test_changed"] is True


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
    sha256 = _hash("x")

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


def photograph(seed: int) -> bytes:
    """A JPEG with a camera's name in it, so that what is stored is other bytes."""
    exif = Image.Exif()
    exif[0x010F] = f"camera {seed}"
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(seed % 100))).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def test_a_photograph_is_known_again_and_erased_by_the_file_that_was_sent(
    base: Dataset, tmp_path: Path
) -> None:
    made = Exported()
    first = made.label(photograph(1), "low", group="p1")
    second = made.label(photograph(2), "high", group="p2")
    twin = made.label(photograph(101), "low", group="p1")  # the same picture by another camera
    found = add(base, made, tmp_path / "one")
    frame = found.frame().set_index("id")
    assert len(frame) == len(base.frame()) + 2
    row = frame.loc[f"review/{min(first, twin)}"]
    assert row["original"] == min(first, twin) != row["sha256"]
    assert "original" not in base.frame().columns  # where nothing was taken out there is no such column

    later = Exported()
    later.label(photograph(2), "high", group="p2")
    later.label(picture(5), "low")
    later.excluded = [min(first, twin)]
    third = add(found, later, tmp_path / "two")
    assert outcomes(third.info["review"][1])  # the new one
    assert f"review/{min(first, twin)}" not in set(third.frame()["id"])
    assert f"review/{second}" in set(third.frame()["id"])
    earlier, latest = third.info["review"]
    assert min(first, twin) not in {sha256 for case in earlier["cases"] for sha256 in case["sha256"]}
    assert second not in {sha256 for case in latest["cases"] for sha256 in case["sha256"]}  # named before


def test_the_same_again_is_the_same_version(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    for i in range(6):
        made.label(picture(i), "low")
    first = add(base, made, tmp_path / "a")
    made.lines.reverse()
    second = add(base, made, tmp_path / "b")
    assert second.digest == first.digest
    again = add(first, made, tmp_path / "c")  # added to what has them already
    assert again.digest == first.digest
    assert again.info["review"][1]["cases"] == []


def test_readers_who_disagree_are_named_or_left_out(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    torn = made.label(picture(1), "low", reader="anna")
    made.label(picture(1), "high", reader="ben")
    made.label(picture(2), "low")
    with pytest.raises(SourceError, match=rf"{torn} grade \(anna: low, line 1, ben: high, line 2\)"):
        add(base, made, tmp_path)
    found = add(base, made, tmp_path, "&conflicts=leave")
    assert outcomes(found.info["review"][0])[torn] == "conflict"
    assert f"review/{torn}" not in set(found.frame()["id"])


def test_an_export_without_labels_still_says_what_was_erased(base: Dataset, tmp_path: Path) -> None:
    before, made = Exported(), Exported()
    made.excluded = [before.label(picture(1), "low")]
    found = add(add(base, before, tmp_path / "first"), made, tmp_path / "second")
    assert len(found.frame()) == len(base.frame())
    review = found.info["review"][1]
    assert (review["cases"], review["readers"], review["from"]) == ([], [], None)


def test_another_split_or_a_limit_is_refused(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    made.label(picture(1), "low")
    for more in ({"split_rule": "fold:0/3"}, {"limit": 12}):
        with pytest.raises(DatasetError, match="The test part would change"):
            add(base, made, tmp_path, **more)


def test_a_base_that_is_none_is_told(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    made.label(picture(1), "low")
    root = made.write(tmp_path / "export")
    for spec, message in (
        (f"review:{root}", "need the dataset that they are added to"),
        (f"review:{root}?base={tmp_path}", "no dataset.json"),
        (f"review:{tmp_path}?base={base.root}", "holds no export.json"),
    ):
        with pytest.raises((SourceError, DatasetError), match=message):
            ingest(spec, base.heads, tmp_path / "out", task="tiny", store=tmp_path / "store")


def test_an_image_that_cannot_be_read_is_named(base: Dataset, tmp_path: Path) -> None:
    made = Exported()
    sha256 = made.label(b"no image", "low")
    with pytest.raises(SourceError, match=rf"can't be read: images/{sha256}"):
        add(base, made, tmp_path)


def test_parts_that_are_not_ok_are_never_learned_from(tmp_path: Path) -> None:
    base = parts_dataset(tmp_path / "parts", train=8, ok=4, ng=4)
    made = Exported(task="anomaly")
    new = {"head": "status"}
    ok = [made.label(file(surface(96, 5000 + i)), "ok", **new) for i in range(12)]
    ng = [made.label(file(with_blot(surface(96, 6000 + i), 0.5, 0.5)), "ng", **new) for i in range(12)]
    made.label(file(surface(96, 7000)), "ok", **new, group="part 1")
    mixed = made.label(file(with_blot(surface(96, 7001), 0.5, 0.5)), "ng", **new, group="part 1")
    found = add(base, made, tmp_path / "plain")
    assert found.info["one_class"] == "ok"
    assert found.test_digest == base.test_digest
    frame = found.frame().set_index("id")
    assert set(frame.loc[[f"review/{each}" for each in ng], "split"]) == {"val"}
    assert "train" in set(frame.loc[[f"review/{each}" for each in ok], "split"])
    assert set(frame[frame["group"] == "part 1"]["split"]) == {"val"}
    longer = add(base, made, tmp_path / "longer", "&extend_test=yes").frame().set_index("id")
    assert set(longer.loc[[f"review/{each}" for each in (*ng, mixed)], "split"]) == {"val", "test"}
    assert set(longer[longer["split"] == "train"]["label.status"]) == {"ok"}


def test_a_part_that_is_not_ok_is_in_val_although_its_group_is_learned_from(tmp_path: Path) -> None:
    base = parts_dataset(tmp_path / "parts", train=8, ok=4, ng=4)
    row = some(base, "train")
    made, new = Exported(task="anomaly"), {"head": "status"}
    made.label(content(base, row), "ok", **new, group="part 9")
    blot = made.label(file(with_blot(surface(96, 8000), 0.5, 0.5)), "ng", **new, group="part 9")
    turned = made.label(content(base, base.split("train").iloc[1]), "ng", **new)
    found = add(base, made, tmp_path / "plain", "&correct=yes")
    frame = found.frame().set_index("id")
    assert frame.loc[f"review/{blot}", "split"] == "val"
    assert frame.loc[row["id"], "split"] == "train"
    other = frame.loc[base.split("train").iloc[1]["id"]]
    assert (other["split"], other["label.status"]) == ("val", "ng")
    assert outcomes(found.info["review"][0], "status")[turned] == "corrected"
    # A dataset's checks let no group be in two splits.
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert found.test_digest == base.test_digest
    assert add(found, made, tmp_path / "again", "&correct=yes").digest == found.digest


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
            BaseRow(f"row {image}", _hash(str(image)), "", where[group], f"p{group}", {"grade": "low"})
            for image, group, _ in rows
        ]

    labels = [
        ReviewLabel(
            line=number,
            sha256=_hash(str(image)),
            file=f"images/{_hash(str(image))}.png",
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
