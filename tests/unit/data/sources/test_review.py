"""Labels added to a dataset: the version that comes of it, what dataset.json says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.dataset import Dataset
from data.errors import DatasetError, SourceError
from data.ingest import ingest
from tests.review_exports import Exported, outcomes, picture
from tests.unit.data.sources.review_versions import add


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
