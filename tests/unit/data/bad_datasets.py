"""Kinds of bad data set, with the error that each gets: one table for the tests and for the documentation.

``BAD_DATASETS`` is ``(name, builder, error class, part of the message)``. A builder writes the bad thing
under a folder and gives a source's spec; :func:`attempt` then ingests and checks it, as the pipeline does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.checks import check, require
from data.dataset import Head
from data.errors import CheckFailed, DatasetError, RetidermError, SourceError
from data.files import read_json, write_json
from tests.unit.data import layouts
from tests.unit.data.layouts import GRADE, labels_flat, make, picture, table

Builder = Callable[[Path], str]


def attempt(spec: str, out: Path, heads: tuple[Head, ...] = (GRADE,)) -> None:
    """What ``retiderm run`` does with data before it trains: ingest, check, stop."""
    require(check(make(spec, heads, out)))


def rows(n: int = 20) -> list[tuple[object, ...]]:
    return [(f"{i}.jpg", i % 5) for i in range(n)]


def wrong_path(root: Path) -> str:
    return f"idrid:{root / 'nowhere'}"


def wrong_kind_name(root: Path) -> str:
    return f"indrid:{root}"


def wrong_kind_for_path(root: Path) -> str:
    layouts.idrid_shared(root)
    return f"ham10000:{root}"


def unknown_option(root: Path) -> str:
    return layouts.idrid_shared(root) + "?splitt=test"


def missing_label(root: Path) -> str:
    return labels_flat(root, [*rows(), ("x.jpg", "")])


def unknown_class(root: Path) -> str:
    return labels_flat(root, [*rows(), ("x.jpg", "7")])


def duplicate_id(root: Path) -> str:
    return labels_flat(root, [*rows(), ("3.jpg", 3)])


def names_no_image(root: Path) -> str:
    spec = labels_flat(root, rows())
    (root / "images/7.jpg").unlink()
    return spec


def image_without_label(root: Path) -> str:
    spec = labels_flat(root, rows())
    layouts.image(root / "images/stray.jpg", 30)
    return spec


def name_leaves_folder(root: Path) -> str:
    spec = labels_flat(root / "set", rows())
    layouts.image(root / "outside.jpg", 30)
    table(root / "set/labels.csv", ("image_name", "label"), [*rows(), ("../../outside.jpg", 1)])
    return spec


def no_label_file(root: Path) -> str:
    spec = labels_flat(root, rows())
    (root / "labels.csv").unlink()
    return spec


def empty_label_file(root: Path) -> str:
    spec = labels_flat(root, rows())
    table(root / "labels.csv", ("image_name", "label"), [])
    return spec


def label_column_missing(root: Path) -> str:
    return labels_flat(root, rows(), columns=("image_name", "stage"))


def label_file_not_text(root: Path) -> str:
    spec = labels_flat(root, rows())
    (root / "labels.csv").write_bytes(b"image_name,label\n\xff\xfe\x00.jpg,1\n")
    return spec


def no_images(root: Path) -> str:
    spec = labels_flat(root, rows())
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    return spec


def eyepacs_name(root: Path) -> str:
    spec = layouts.eyepacs(root)
    layouts.image(root / "train/13.jpeg", 40)
    with (root / "trainLabels.csv").open("a") as stream:
        stream.write("13,2\n")
    return spec


def folder_no_class(root: Path) -> str:
    spec = layouts.folders(root)
    layouts.image(root / "modderate/1.jpg", 40)
    return spec


def npz_not_zip(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    (root / "retinamnist.npz").write_bytes(b"PK\x03\x04 and then nothing")
    return f"medmnist:{root / 'retinamnist.npz'}"


def npz_lacks_array(root: Path) -> str:
    return layouts.medmnist(root, val_labels=None)


def npz_pickle(root: Path) -> str:
    return layouts.medmnist(root, train_labels=np.array([object()] * 20, dtype=object))


def npz_unknown_class(root: Path) -> str:
    return layouts.medmnist(root, test_labels=np.full((10, 1), 9, np.uint8))


def npz_three_dimensional(root: Path) -> str:
    return layouts.medmnist(root, train_images=np.zeros((20, 28, 28, 28), np.uint8))


def head_not_there(root: Path) -> str:
    return layouts.idrid_shared(root)


def partly_split(root: Path) -> str:
    """A canonical dataset whose manifest was edited to lack a split."""
    made = make(labels_flat(root / "set", rows()), (GRADE,), root / "first")
    frame = made.frame()
    frame.loc[3, "split"] = None
    frame.to_parquet(made.root / "manifest.parquet")
    return f"dataset:{made.root}"


def other_format(root: Path) -> str:
    made = make(labels_flat(root / "set", rows()), (GRADE,), root / "first")
    write_json(made.root / "dataset.json", {**read_json(made.root / "dataset.json"), "format": 99})
    return f"dataset:{made.root}"


def no_dataset(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    return f"dataset:{root}"


def nothing_readable(root: Path) -> str:
    spec = labels_flat(root, rows())
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    return spec


def truncated_image(root: Path) -> str:
    spec = labels_flat(root, rows())
    (root / "images/4.jpg").write_bytes(picture(4)[:900])
    return spec


def text_named_jpg(root: Path) -> str:
    spec = labels_flat(root, rows())
    (root / "images/4.jpg").write_text("This is no photograph.")
    return spec


def empty_image(root: Path) -> str:
    spec = labels_flat(root, rows())
    (root / "images/4.jpg").write_bytes(b"")
    return spec


def same_image_in_two_splits(root: Path) -> str:
    spec = layouts.labels(root)
    (root / "val/images/val0.jpg").write_bytes(picture(0))
    return spec


def group_in_two_splits(root: Path) -> str:
    for part, start in (("train", 0), ("val", 20)):
        made = [(f"{part}{i}.jpg", i % 5, f"patient{i}") for i in range(15)]
        table(root / part / "labels.csv", ("image_name", "label", "group"), made)
        for i, row in enumerate(made):
            layouts.image(root / part / "images" / row[0], start + i)
    return f"labels:{root}?profile=fundus"


def class_without_image(root: Path) -> str:
    return labels_flat(root, [(f"{i}.jpg", i % 4) for i in range(20)])


def too_small(root: Path) -> str:
    spec = labels_flat(root, rows())
    from data.synthetic import draw, plan

    (root / "images/4.jpg").write_bytes(draw(plan("fundus", 1, seed=5, size=32)[0]))
    return spec


BAD_DATASETS: list[tuple[str, Builder, type[RetidermError], str]] = [
    ("a path with nothing there", wrong_path, SourceError, "There is nothing at"),
    (
        "an unknown kind of source",
        wrong_kind_name,
        SourceError,
        "Unknown kind of source 'indrid' (did you mean idrid?)",
    ),
    (
        "another kind than the path holds",
        wrong_kind_for_path,
        SourceError,
        "has no file HAM10000_metadata.csv",
    ),
    ("an unknown option", unknown_option, SourceError, "has no option splitt"),
    ("a missing label", missing_label, SourceError, "has no label in 1 row(s): line 22 (x.jpg)"),
    ("an unknown class", unknown_class, SourceError, "unknown class in 1 row(s): line 22 (x.jpg): '7'"),
    ("a duplicate id", duplicate_id, SourceError, "names 1 image(s) twice: line 22 (3.jpg)"),
    (
        "a label file that names no image",
        names_no_image,
        SourceError,
        "image(s) that are not there: line 9 (7.jpg)",
    ),
    (
        "an image that no label names",
        image_without_label,
        SourceError,
        "1 image(s) have no row in labels.csv: stray.jpg",
    ),
    ("an image name that leaves the folder", name_leaves_folder, SourceError, "line 22 (../../outside.jpg)"),
    ("no label file", no_label_file, SourceError, "has no file labels.csv"),
    ("an empty label file", empty_label_file, SourceError, "has a header but no rows"),
    ("a label column missing", label_column_missing, SourceError, "has no column label"),
    ("a label file that is no text", label_file_not_text, SourceError, "is not a UTF-8 text file"),
    ("an empty image folder", no_images, SourceError, "No images in"),
    ("an EyePACS name without its eye", eyepacs_name, SourceError, "'13' doesn't end in _left or _right"),
    ("a folder named like no class", folder_no_class, SourceError, "modderate (did you mean moderate?)"),
    ("an .npz that is none", npz_not_zip, SourceError, "is not a readable .npz"),
    ("an .npz without an array", npz_lacks_array, SourceError, "lacks the array(s) val_labels"),
    ("an .npz with pickled objects", npz_pickle, SourceError, "holds Python objects"),
    (
        "an .npz with an unknown class",
        npz_unknown_class,
        SourceError,
        "unknown class in 10 row(s): test 0: 9",
    ),
    ("a 3-D .npz", npz_three_dimensional, SourceError, "train_images is uint8 (20, 28, 28, 28)"),
    ("a canonical dataset with a split missing", partly_split, DatasetError, "a split for 19 of 20 images"),
    ("a canonical dataset of another format", other_format, DatasetError, "is of format 99"),
    ("a folder that is no canonical dataset", no_dataset, DatasetError, "holds no dataset.json"),
    ("no readable image at all", nothing_readable, DatasetError, "None of the 20 images could be read"),
    ("a truncated image", truncated_image, CheckFailed, "can't be decoded and were left out. (4:"),
    ("a text named like an image", text_named_jpg, CheckFailed, "can't be decoded and were left out. (4:"),
    ("an image of zero bytes", empty_image, CheckFailed, "can't be decoded and were left out. (4:"),
    (
        "one image in two given splits",
        same_image_in_two_splits,
        CheckFailed,
        "The same image is in two splits.",
    ),
    ("a patient in two given splits", group_in_two_splits, CheckFailed, "group patient0 is in train, val"),
    ("a class without any image", class_without_image, CheckFailed, "grade=proliferative in any split"),
    ("an image under the least size", too_small, CheckFailed, "Images have a side under"),
]
