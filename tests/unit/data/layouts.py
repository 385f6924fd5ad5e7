"""Tiny data sets in the layouts of the real ones, written to a folder."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Head
from data.ingest import ingest
from data.synthetic import draw, plan

GRADE = Head("grade", ("no_dr", "mild", "moderate", "severe", "proliferative"))
DX = Head("diagnosis", ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"))


@functools.cache
def picture(number: int, subject: str = "fundus", format: str = "jpeg") -> bytes:
    """The bytes of a small drawn image; another number is another image."""
    return draw(plan(subject, number + 1, seed=11, size=128, format=format)[number])


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def image(path: Path, number: int, subject: str = "fundus", format: str = "jpeg") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number, subject, format))


def make(spec: str, heads: Sequence[Head], out: Path, **options: object) -> Dataset:
    """Ingest into ``out/dataset`` with a store of its own."""
    return ingest(spec, heads, out / "dataset", task="test", store=out / "store", **options)  # type: ignore[arg-type]


def aptos(root: Path, n: int = 20) -> str:
    table(root / "train.csv", ("id_code", "diagnosis"), [(f"{i:012x}", i % 5) for i in range(n)])
    for i in range(n):
        image(root / f"train_images/{i:012x}.png", i, format="png")
    return f"aptos:{root}"


def eyepacs(root: Path, patients: int = 12) -> str:
    rows = [(f"{p}_{eye}", (p + (eye == "right")) % 5) for p in range(patients) for eye in ("left", "right")]
    table(root / "trainLabels.csv", ("image", "level"), rows)
    for i, (name, _) in enumerate(rows):
        image(root / f"train/{name}.jpeg", i)
    return f"eyepacs:{root}"


def messidor2(root: Path, n: int = 12, *, paired: bool = True) -> str:
    columns = ("image_id", "adjudicated_dr_grade", "adjudicated_dme", "adjudicated_gradable")
    rows: list[Sequence[object]] = [(f"IM{i:04d}.jpg", i % 5, i % 2, 1) for i in range(n)]
    rows.append((f"IM{n:04d}.jpg", "", "", 0))
    table(root / "messidor_data.csv", columns, rows)
    for i in range(n + 1):
        image(root / f"IMAGES/IM{i:04d}.JPG", i)
    if paired:
        pairs = [(f"IM{i:04d}.JPG", f"IM{i + 1:04d}.JPG") for i in range(0, n, 2)]
        table(root / "messidor-2.csv", ("left", "right"), pairs)
    return f"messidor2:{root}"


def messidor2_repacked(root: Path, n: int = 12) -> str:
    """As it was published again with enhanced images: other column names, PNG, a folder deeper."""
    columns = ("id_code", "diagnosis", "adjudicated_dme", "adjudicated_gradable")
    rows: list[Sequence[object]] = [(f"IM{i:04d}.png", i % 5, i % 2, 1) for i in range(n)]
    rows.append((f"IM{n:04d}.png", "", "", 0))
    table(root / "messidor_data.csv", columns, rows)
    for i in range(n + 1):
        image(root / f"messidor-2/messidor-2/preprocess/IM{i:04d}.png", i, format="png")
    return f"messidor2:{root}"


def idrid_shared(root: Path, n: int = 20) -> str:
    rows = [(f"IDRiD_{i:03d}.jpg", i % 5, i % 3) for i in range(n)]
    table(root / "labels.csv", ("image", "dr_grade", "dme_risk"), rows)
    for i, row in enumerate(rows):
        image(root / f"images/{row[0]}", i)
    return f"idrid:{root}"


def idrid_official(root: Path, n: int = 20, tests: int = 8) -> str:
    """With the trailing space and the empty columns of the published files; each part counts from 001."""
    base = root / "B. Disease Grading"
    columns = ("Image name", "Retinopathy grade", "Risk of macular edema ", "", "")
    for part, folder, count, start in (
        ("a. IDRiD_Disease Grading_Training Labels.csv", "a. Training Set", n, 0),
        ("b. IDRiD_Disease Grading_Testing Labels.csv", "b. Testing Set", tests, n),
    ):
        names = [f"IDRiD_{i:03d}" for i in range(1, count + 1)]
        rows = [(name, i % 5, i % 3, "", "") for i, name in enumerate(names)]
        table(base / "2. Groundtruths" / part, columns, rows)
        for i, name in enumerate(names):
            image(base / "1. Original Images" / folder / f"{name}.jpg", start + i)
    return f"idrid:{root}"


def labels(root: Path, n: int = 20, val: int = 6, *, same_names: bool = False) -> str:
    """The older service's layout: train and val, no test."""
    for part, count, start in (("train", n, 0), ("val", val, n)):
        rows = [(f"{'' if same_names else part}{i}.jpg", i % 5) for i in range(count)]
        table(root / part / "labels.csv", ("image_name", "label"), rows)
        for i, row in enumerate(rows):
            image(root / part / "images" / row[0], start + i)
    return f"labels:{root}?profile=fundus"


def labels_flat(
    root: Path, rows: Sequence[Sequence[object]], columns: Sequence[str] = ("image_name", "label")
) -> str:
    """One table and one folder; every named image is there."""
    table(root / "labels.csv", columns, rows)
    for i, name in enumerate(dict.fromkeys(str(row[0]) for row in rows)):
        image(root / "images" / name, i)
    return f"labels:{root}?profile=fundus"


def ham10000(root: Path, lesions: int = 28, *, halves: bool = False) -> str:
    rows = []
    for lesion in range(lesions):
        for _ in range(1 + lesion % 2):
            name = f"ISIC_{len(rows):07d}"
            rows.append(
                (f"HAM_{lesion:07d}", name, DX.classes[lesion % 7], "histo", 40 + lesion, "male", "back")
            )
    rows[1] = (*rows[1][:4], "", "unknown", "unknown")
    columns = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
    table(root / "HAM10000_metadata.csv", columns, rows)
    for i, row in enumerate(rows):
        folder = f"HAM10000_images_part_{1 + i % 2}" if halves else "images"
        image(root / folder / f"{row[1]}.jpg", i, "lesion")
    return f"ham10000:{root}"


def medmnist(
    root: Path, name: str = "retinamnist", counts: Sequence[int] = (20, 5, 10), **changes: object
) -> str:
    rng = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 5)[:, None]
    arrays |= changes
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / f"{name}.npz", **{key: value for key, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return f"medmnist:{root / name}.npz"


def folders(root: Path, n: int = 4, *, split: bool = False) -> str:
    number = 0
    for part in ("train", "val", "test") if split else ("",):
        for name in GRADE.classes:
            for _ in range(n):
                image(root / part / name / f"{number}.jpg", number)
                number += 1
    return f"folders:{root}?profile=fundus"


Layout = Callable[[Path], str]
