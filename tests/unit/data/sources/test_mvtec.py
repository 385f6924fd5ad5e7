from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.checks import check
from data.dataset import Dataset, Head
from data.errors import IntegrityError, SourceError
from data.ingest import ingest
from data.masks import read_mask
from data.sources import open_source
from tests.unit.data.layouts import GRADE, make

STATUS = Head("status", ("ok", "ng"))


def save(path: Path, image: np.ndarray) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def part(number: int, *, scratch: bool = False) -> np.ndarray:  # type: ignore[type-arg]
    """A grey part with its own grain; a scratch is a dark bar."""
    noise = np.random.default_rng(number).normal(0, 12, (96, 96))
    image = np.clip(150 + noise, 0, 255).astype(np.uint8)
    cv2.circle(image, (48, 48), 30, 60, 4)
    if scratch:
        image[40:44, 20:70] = 5
    return image


def mark() -> np.ndarray:  # type: ignore[type-arg]
    mask = np.zeros((96, 96), np.uint8)
    mask[40:44, 20:70] = 255
    return mask


def layout(root: Path, train: int = 8) -> Path:
    for i in range(train):
        save(root / f"train/good/{i:03d}.png", part(i))
    for i in range(3):
        save(root / f"test/good/{i:03d}.png", part(100 + i))
        save(root / f"test/scratch/{i:03d}.png", part(200 + i, scratch=True))
        save(root / f"ground_truth/scratch/{i:03d}_mask.png", mark())
    save(root / "test/bent/000.png", part(300, scratch=True))
    save(root / "ground_truth/bent/000_mask.png", mark())
    return root


def test_images_labels_splits_and_masks(tmp_path: Path) -> None:
    source = open_source(f"mvtec:{layout(tmp_path)}")
    found = {each.id: each for each in source.samples((STATUS,))}
    assert len(found) == 8 + 3 + 4
    bent = found["test/bent/000.png"]
    assert (bent.labels, bent.split, bent.meta) == ({"status": "ng"}, "test", {"defect": "bent"})
    assert bent.mask is not None
    assert read_mask(bent.mask()).sum() == 4 * 50
    assert found["train/good/000.png"].labels == found["test/good/000.png"].labels == {"status": "ok"}
    assert {each.split for each in found.values() if each.labels["status"] == "ok"} == {"train", "test"}
    assert found["test/good/000.png"].mask is None
    assert source.licence.forbids == ("commercial",)


def test_the_canonical_dataset_has_them_whole(tmp_path: Path) -> None:
    made = make(f"mvtec:{layout(tmp_path / 'part')}", (STATUS,), tmp_path)
    counts = {split: made.info["counts"][split]["status"] for split in ("train", "val", "test")}
    assert counts["test"] == {"ok": 3, "ng": 4}
    assert counts["train"]["ng"] == counts["val"]["ng"] == 0
    assert counts["train"]["ok"] + counts["val"]["ok"] == 8
    assert counts["val"]["ok"] >= 1
    assert (made.info["masks"], made.info["one_class"]) == (4, "ok")
    frame = made.frame()
    assert frame["mask"].notna().sum() == 4
    [mask] = set(frame["mask"].dropna())  # the four are the same bytes, stored once
    assert read_mask(made.image_path(mask).read_bytes()).sum() == 4 * 50
    report = check(made)
    assert report.passed, report.failures
    assert "class_counts" not in {each.check for each in report.warnings}


def test_masks_are_in_the_digest_and_only_where_there_are_any(tmp_path: Path) -> None:
    root = layout(tmp_path / "part")
    made = make(f"mvtec:{root}", (STATUS,), tmp_path / "a")
    without = make(f"mvtec:{root}?masks=ignore", (STATUS,), tmp_path / "b")
    assert made.digest != without.digest
    assert made.test_digest != without.test_digest
    assert "mask" not in without.frame().columns
    assert "masks" not in without.info
    assert not (without.root / "masks").exists()

    # The same images under plain folders: no column, no change of a digest that was made before masks were.
    plain = tmp_path / "plain"
    for split, label, folder in (("train", "ok", "train/good"), ("test", "ok", "test/good")):
        for path in (root / folder).iterdir():
            save(plain / split / label / path.name, cv2.imread(str(path)))
    for folder in ("test/scratch", "test/bent"):
        for path in (root / folder).iterdir():
            save(plain / "test/ng" / f"{Path(folder).name}{path.name}", cv2.imread(str(path)))
    same = make(f"folders:{plain}", (STATUS,), tmp_path / "c", split_rule="one-class")
    assert "mask" not in same.frame().columns

    changed = mark()
    changed[0, 0] = 255
    save(root / "ground_truth/bent/000_mask.png", changed)
    other = make(f"mvtec:{root}", (STATUS,), tmp_path / "d")
    assert other.digest != made.digest
    assert set(other.frame()["sha256"]) == set(made.frame()["sha256"])


def test_a_digest_from_before_masks_is_the_same_today(tmp_path: Path) -> None:
    """Computed at the commit before masks came, from these rows."""
    import pandas as pd

    from data.dataset import digest_of

    frame = pd.DataFrame(
        {
            "sha256": ["a" * 64, "b" * 64],
            "label.status": ["ok", "ng"],
            "group": ["g", None],
            "split": ["train", "test"],
        }
    )
    before = "sha256:8afa0f5bcd5be2d69e185813725845b2d657be18fa9c69e75f2850663b5659c3"
    assert digest_of(frame, (STATUS,)) == before
    assert digest_of(frame.assign(mask=None), (STATUS,)) == before
    assert digest_of(frame.assign(mask=[None, "masks/cc/" + "c" * 64 + ".png"]), (STATUS,)) != before


def test_a_dataset_as_a_source_keeps_its_masks(tmp_path: Path) -> None:
    made = make(f"mvtec:{layout(tmp_path / 'part')}", (STATUS,), tmp_path / "a")
    again = make(f"dataset:{made.root}", (STATUS,), tmp_path / "b")
    assert again.digest == made.digest
    assert again.info["one_class"] == "ok"
    assert check(again).passed


def test_an_altered_or_missing_mask_is_told(tmp_path: Path) -> None:
    made = make(f"mvtec:{layout(tmp_path / 'part')}", (STATUS,), tmp_path)
    path = made.image_path(made.frame()["mask"].dropna().iloc[0])
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(IntegrityError, match=r"masks/.* is missing"):
        made.verify()
    path.write_bytes(kept + b"x")
    with pytest.raises(IntegrityError, match=r"masks/.* was altered"):
        made.verify()
    report = check(made)
    assert not report.passed
    assert {each.check for each in report.failures} == {"files"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: save(root / "ground_truth/bent/000_mask.png", np.zeros((96, 96), np.uint8)), "nothing"),
        (lambda root: save(root / "ground_truth/bent/000_mask.png", mark()[:50]), "96 x 50 px"),
        (
            lambda root: (root / "ground_truth/bent/000_mask.png").write_bytes(b"no image"),
            "mask can't be used: the bytes are not",
        ),
        (
            lambda root: (root / "ground_truth/bent/000_mask.png").write_bytes(
                cv2.imencode(".jpg", mark())[1].tobytes()
            ),
            "lossless",
        ),
    ],
)
def test_a_bad_mask_rejects_its_image_and_fails_the_check(spoil: object, reason: str, tmp_path: Path) -> None:
    root = layout(tmp_path / "part")
    spoil(root)  # type: ignore[operator]
    made = make(f"mvtec:{root}", (STATUS,), tmp_path)
    [rejected] = made.rejected()
    assert rejected["id"] == "test/bent/000.png"
    assert reason in rejected["reason"].lower()
    assert not check(made).passed


def test_a_missing_mask_is_named_before_anything_is_read(tmp_path: Path) -> None:
    root = layout(tmp_path)
    (root / "ground_truth/bent/000_mask.png").unlink()
    with pytest.raises(SourceError, match=r"1 defective image.*test/bent/000.png.*masks=optional"):
        list(open_source(f"mvtec:{root}").samples((STATUS,)))
    found = list(open_source(f"mvtec:{root}?masks=optional").samples((STATUS,)))
    assert sum(each.mask is not None for each in found) == 3


def test_another_layout_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    layout(tmp_path / "screw")
    layout(tmp_path / "nut")
    with pytest.raises(SourceError, match="Name one of its objects: nut, screw"):
        open_source(f"mvtec:{tmp_path}")
    with pytest.raises(SourceError, match="classes ok and ng"):
        list(open_source(f"mvtec:{tmp_path / 'nut'}").samples((GRADE,)))
    save(tmp_path / "nut/train/bad/000.png", part(1))
    with pytest.raises(SourceError, match="beside train/good: bad"):
        list(open_source(f"mvtec:{tmp_path / 'nut'}").samples((STATUS,)))
    save(tmp_path / "screw/test/000.png", part(1))
    with pytest.raises(SourceError, match="itself"):
        list(open_source(f"mvtec:{tmp_path / 'screw'}").samples((STATUS,)))
    with pytest.raises(SourceError, match="masks=all"):
        open_source(f"mvtec:{tmp_path / 'screw'}?masks=all")


def test_plain_folders_split_for_one_class_keep_every_other_class_out_of_train(tmp_path: Path) -> None:
    for i in range(30):
        save(tmp_path / f"parts/ok/{i}.png", part(i))
    for i in range(10):
        save(tmp_path / f"parts/ng/{i}.png", part(500 + i, scratch=True))
    made = make(f"folders:{tmp_path / 'parts'}", (STATUS,), tmp_path, split_rule="one-class:3")
    counts = {split: made.info["counts"][split]["status"] for split in ("train", "val", "test")}
    assert counts["train"]["ng"] == 0
    assert counts["val"]["ng"] + counts["test"]["ng"] == 10
    assert min(counts["val"]["ng"], counts["test"]["ng"]) >= 3
    assert (counts["train"]["ok"], counts["val"]["ok"], counts["test"]["ok"]) == (19, 5, 6)
    assert check(made).passed


def test_screw_whole(shared_data: Path, tmp_path: Path) -> None:
    made: Dataset = ingest(
        f"mvtec:{shared_data / 'mvtec/screw'}",
        (STATUS,),
        tmp_path / "dataset",
        task="anomaly",
        store=tmp_path / "store",
    )
    assert made.info["counts"] == {
        "train": {"status": {"ok": 136, "ng": 0}},
        "val": {"status": {"ok": 24, "ng": 0}},
        "test": {"status": {"ok": 17, "ng": 44}},
    }
    assert made.info["masks"] == 44
    assert check(made).passed
