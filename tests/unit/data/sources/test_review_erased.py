"""Images that were erased leave a dataset, by whatever name it knows them."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from data.dataset import Dataset
from tests.review_exports import Exported, outcomes, picture
from tests.unit.data.sources.review_versions import add, some


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


def test_an_export_without_labels_still_says_what_was_erased(base: Dataset, tmp_path: Path) -> None:
    before, made = Exported(), Exported()
    made.excluded = [before.label(picture(1), "low")]
    found = add(add(base, before, tmp_path / "first"), made, tmp_path / "second")
    assert len(found.frame()) == len(base.frame())
    review = found.info["review"][1]
    assert (review["cases"], review["readers"], review["from"]) == ([], [], None)
