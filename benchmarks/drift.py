"""Whether drift is seen when it is there, and not when it isn't, on a trained model's real images.

Run: ``python -m benchmarks.drift --bundle DIR --data DATASET [--other DIR…] [--draws 20] [--splits 200]``.

Windows of 200 images are drawn by fixed seeds from the dataset's test split, which neither the model nor the
bundle's reference has seen, and judged as ``retiderm drift check`` does. What must hold:

- four shifts, each on ``--draws`` windows, alarm in every window: a Gaussian blur of 2 pixels at a width of
  224; light of 5000 and of 8000 K where it was 6500 K; images of another data set (``--other`` folders; drawn
  skin lesions without); half the share of the commonest class;
- of ``--draws`` windows without a shift at most one alarms.

Beside that, without a target: weaker shifts, windows drawn lesion by lesion, what labels say, and the rate of
false alarms over ``--splits`` random cuts of validation and test images into a reference and a window.

A bundle that was exported before there was a reference for drift gets one from the validation split.
"""

from __future__ import annotations

import argparse
import collections
import csv
import dataclasses
import datetime
import io
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.shifts import NEUTRAL, blurred, under_light
from data.dataset import Dataset
from data.files import atomic_path, write_json
from data.image import STORED_LIMITS, decode
from data.preprocess import Preprocessing
from data.provenance import code_digest, hardware, versions
from serving.core.bundle import REFERENCE, Bundle
from serving.core.drift import NEIGHBOURS, Reference, Settings, Window, judge
from serving.core.drift.features import neighbour_distance, principal
from serving.core.runtimes import open_runtime
from training.drift.collect import Collector
from training.export.reference import reference

OUT = Path(__file__).parent / "results" / "drift.csv"
SIZE = 200
SUFFIXES = {".jpg", ".jpeg", ".png"}
LEVELS = (0.01, 0.05, 0.2)

Row = dict[str, Any]
Picture = NDArray[np.uint8]
Pick = Callable[[np.random.Generator], NDArray[np.intp]]


def main() -> int:
    """Draw, judge, print and write both tables; 1 if anything that must hold doesn't."""
    chosen = arguments()
    bundle, dataset = Bundle.open(chosen.bundle), Dataset.open(chosen.data)
    if dataset.test_digest != bundle.card.dataset.test_digest:
        sys.exit(f"{chosen.data} has other test images than those that the bundle was judged on.")
    arrays, renewed = reference_arrays(bundle, dataset)
    card = bundle.card
    known = Reference.of_arrays(
        arrays, card.heads, kind=card.kind, task=card.task, digest=bundle.digest, metrics=card.metrics
    )
    collector = Collector.open(bundle)
    try:
        rows = list(measured(chosen, known, arrays, collector, dataset))
    finally:
        collector.close()
    passed = all(row["met"] != "no" for row in rows)
    write(chosen.out, rows, {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": card.task,
        "bundle": bundle.digest,
        "reference_renewed": renewed,
        "dataset": dataset.digest,
        "source": card.dataset.source,
        "synthetic": card.dataset.synthetic,
        "settings": dataclasses.asdict(Settings(size=SIZE)),
        "hardware": hardware(),
        "versions": versions("numpy", "onnxruntime", "opencv-python-headless"),
        "code_digest": code_digest("data", "training", "serving"),
        "rows": rows,
        "passed": passed,
    })  # fmt: skip
    for row in rows:
        if row["met"] == "no":
            print(
                f"missed: {row['part']} {row['name']}: {row['alarmed']} of {row['windows']}", file=sys.stderr
            )
    return 0 if passed else 1


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the dataset folder that it was trained on")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders of other photographs")
    parser.add_argument("--draws", type=int, default=20, help="windows of each kind")
    parser.add_argument("--splits", type=int, default=200, help="random cuts for the false alarm rate")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def reference_arrays(bundle: Bundle, dataset: Dataset) -> tuple[dict[str, NDArray[Any]], bool]:
    """The bundle's reference, or one made of the dataset now where the bundle's is too old; which of them."""
    arrays = bundle.arrays(REFERENCE)
    if "drift.group" in arrays:
        return arrays, False
    card, runtime = bundle.card, open_runtime(bundle)
    try:
        raw = reference(runtime, dataset, Preprocessing.from_dict(card.preprocessing), card.heads)
    finally:
        runtime.close()
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}, True


def measured(
    chosen: argparse.Namespace,
    known: Reference,
    arrays: dict[str, NDArray[Any]],
    collector: Collector,
    dataset: Dataset,
) -> Iterator[Row]:
    """Every row, printed as it comes."""
    settings, draws = Settings(size=SIZE), chosen.draws
    test = dataset.split("test").sort_values("id", kind="stable")
    files = [dataset.image_path(path).read_bytes() for path in test["path"]]
    head = known.heads[0]
    label = test[f"label.{head.name}"]
    truth = np.array([head.classes.index(name) if name in head.classes else -1 for name in label])
    groups = np.unique(test["group"].astype(str), return_inverse=True)[1]
    anyone = uniform(len(files))

    def window(shift: Callable[[Picture], Picture] | None = None) -> Window:
        shifted = files if shift is None else (png(shift(decode(data, STORED_LIMITS))) for data in files)
        return dataclasses.replace(collector.window(shifted), truth={head.name: truth})

    def tried(
        part: str,
        name: str,
        whole: Window,
        pick: Pick,
        count: int = draws,
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> Row:
        windows = [whole.rows(pick(np.random.default_rng(i))[:SIZE]) for i in range(count)]
        return row(part, name, known, windows, settings, least=least, most=most)

    plain = window()
    yield tried("no shift", "test images", plain, anyone, most=1)
    yield tried("no shift", "test images, lesion by lesion", plain, together(groups))
    yield tried("no shift", "test images, ten times as many draws", plain, anyone, 10 * draws)
    for sigma, target in ((2.0, 1.0), (1.0, None), (0.7, None), (0.5, None)):
        name = f"blur, sigma {sigma:g} px at a width of 224"
        shifted = window(lambda picture, sigma=sigma: blurred(picture, sigma))  # type: ignore[misc]
        yield tried("shift", name, shifted, anyone, least=draws if target else None)
    for change in (-1500, 1500, -1000, 1000, -500, 500):
        name = f"light of {NEUTRAL + change:.0f} K instead of {NEUTRAL:.0f} K"
        shifted = window(lambda picture, by=change: under_light(picture, NEUTRAL + by))  # type: ignore[misc]
        yield tried("shift", name, shifted, anyone, least=draws if abs(change) == 1500 else None)
    for name, images in others(chosen.other, max(SIZE, draws)):
        yield tried("shift", f"another data set: {name}", collector.window(images), uniform(len(images)),
                    least=draws)  # fmt: skip
    common = int(np.bincount(truth[truth >= 0]).argmax())
    share = float((truth == common).mean())
    for name, left, asked in (
        ("half the share of", share / 2, draws),
        ("every second image left out of", share / (2 - share), None),
    ):
        text = f"{name} {head.classes[common]}: {share:.0%} to {left:.0%}"
        yield tried("shift", text, plain, mixed(truth == common, left), least=asked)
    yield tried("labels", "one right answer in six called wrong", mislabelled(plain, head.name), anyone)
    val = collector.window(dataset.image_path(path).read_bytes() for path in dataset.split("val")["path"])
    val_groups = dataset.split("val")["group"].astype(str)
    both = joined(plain, val)
    together_groups = np.unique([*test["group"].astype(str), *val_groups], return_inverse=True)[1]
    yield from false_alarms(known, arrays, both, together_groups, chosen.splits)


def row(
    part: str,
    name: str,
    known: Reference,
    windows: list[Window],
    settings: Settings,
    *,
    least: float | None = None,
    most: float | None = None,
) -> Row:
    """One line of the table: how many windows alarm, after how many images, by which measures."""
    reports = [judge(known, window, settings) for window in windows]
    alarmed = [report for report in reports if report.alarm]
    looks = [min(finding.look for finding in report.alarms) for report in alarmed]
    measures = collections.Counter(finding.measure for report in alarmed for finding in report.alarms)
    target, met = "", ""
    if least is not None:
        target, met = f">= {least:g}", "yes" if len(alarmed) >= least else "no"
    if most is not None:
        target, met = f"<= {most:g}", "yes" if len(alarmed) <= most else "no"
    found = {
        "part": part,
        "name": name,
        "windows": len(windows),
        "alarmed": len(alarmed),
        "images_median": float(np.median(looks)) if looks else None,
        "images_most": max(looks, default=None),
        "measures": ", ".join(f"{key} {count}" for key, count in measures.most_common()),
        "target": target,
        "met": met,
        "reason": alarmed[0].reason if alarmed else "",
    }
    print(f"{part:9} {name:58} {len(alarmed):4d} of {len(windows):<4d} {found['images_median']!s:6} "
          f"{target:6} {met:4} {found['measures']}", flush=True)  # fmt: skip
    return found


def false_alarms(
    known: Reference,
    arrays: dict[str, NDArray[Any]],
    pool: Window,
    groups: NDArray[np.intp],
    splits: int,
) -> Iterator[Row]:
    """The rate of false alarms over references as well as windows, at several levels.

    Groups are dealt at random: the first that make as many images as the bundle keeps are the reference, of
    the others come the windows' images, a group at a time.
    """
    size = len(arrays["drift.group"])
    alarms = dict.fromkeys(LEVELS, 0)
    for split in range(splits):
        order = together(groups)(np.random.default_rng([split, 1]))
        cut = size + int(np.argmax(groups[order[size:]] != groups[order[size - 1]]))
        drawn = Reference.of_arrays(
            held_out(pool.rows(order[:cut]), groups[order[:cut]], arrays), known.heads, metrics=known.metrics
        )
        rest = pool.rows(order[cut : cut + SIZE])
        for level in LEVELS:
            alarms[level] += judge(drawn, rest, Settings(level=level, size=SIZE)).alarm
    for level, count in alarms.items():
        low, high = wilson(count, splits)
        print(f"level {level:g}: {count} of {splits} alarm ({low:.3f} to {high:.3f})", flush=True)
        yield {
            "part": "false alarms",
            "name": f"level {level:g}, a new reference for each window",
            "windows": splits,
            "alarmed": count,
            "images_median": None,
            "images_most": None,
            "measures": f"rate {count / splits:.4f}, 95 % interval {low:.4f} to {high:.4f}",
            "target": f"interval reaches down to <= {level:g}",
            "met": "yes" if low <= level else "no",
            "reason": "",
        }


def held_out(window: Window, groups: NDArray[np.intp], arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """A reference's arrays with these images in the place of those that the bundle keeps."""
    assert window.embedding is not None
    mean, components, sample = (
        np.asarray(arrays[f"embedding_{name}"], np.float64) for name in ("mean", "components", "sample")
    )
    return {
        **{name: arrays[name] for name in arrays if name.startswith("embedding_")},
        "drift.group": groups,
        "drift.gradable": window.gradable,
        "drift.sharpness": window.sharpness,
        "drift.exposure": window.exposure,
        "drift.colour": window.colour,
        "drift.scores": principal(window.embedding, mean, components),
        "drift.distance": neighbour_distance(window.embedding, sample, NEIGHBOURS),
        **{f"{head}.probabilities": values for head, values in window.probabilities.items()},
    }


def uniform(count: int) -> Pick:
    """Images at random, each at most once."""
    return lambda rng: rng.choice(count, min(SIZE, count), replace=False)


def together(groups: NDArray[np.intp]) -> Pick:
    """All images, group after group in random order, as a patient's come after each other."""

    def pick(rng: np.random.Generator) -> NDArray[np.intp]:
        place = rng.permutation(int(groups.max()) + 1)
        return np.lexsort((rng.random(len(groups)), place[groups]))

    return pick


def mixed(common: NDArray[np.bool_], share: float) -> Pick:
    """Windows with ``share`` of the common class, the others among themselves as they were."""

    def pick(rng: np.random.Generator) -> NDArray[np.intp]:
        count = round(SIZE * share)
        one = rng.choice(np.flatnonzero(common), count, replace=False)
        other = rng.choice(np.flatnonzero(~common), SIZE - count, replace=False)
        return rng.permutation(np.concatenate([one, other]))

    return pick


def mislabelled(window: Window, head: str) -> Window:
    """The same answers, one right one in six wrong: as if the model had become so much worse."""
    truth = window.truth[head].copy()
    answers = window.probabilities[head].argmax(axis=1)
    right = np.flatnonzero(truth == answers)[::6]
    truth[right] = (truth[right] + 1) % window.probabilities[head].shape[1]
    return dataclasses.replace(window, truth={head: truth})


def joined(one: Window, other: Window) -> Window:
    """Two windows' images, without truth."""

    def both(name: str) -> Any:
        return np.concatenate([getattr(one, name), getattr(other, name)])

    names = ("gradable", "sharpness", "exposure", "colour", "embedding")
    return Window(
        images=one.images + other.images,
        **{name: both(name) for name in names},
        probabilities={
            head: np.concatenate([values, other.probabilities[head]])
            for head, values in one.probabilities.items()
        },
    )


def others(folders: list[Path], least: int) -> Iterator[tuple[str, list[bytes]]]:
    """Each folder's photographs; drawn ones where no folder is named."""
    if not folders:
        from data.synthetic.folder import write_folder

        with tempfile.TemporaryDirectory() as name:
            write_folder("skin", least, Path(name))
            yield "drawn skin lesions", read(Path(name))
        return
    for folder in folders:
        yield folder.parent.name if folder.name == "images" else folder.name, read(folder)


def read(folder: Path) -> list[bytes]:
    """The image files under a folder, by name."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"{folder} holds no photographs ({', '.join(sorted(SUFFIXES))}).")
    return [path.read_bytes() for path in found]


def png(picture: Picture) -> bytes:
    """Encoded without loss, so that a shifted photograph takes the way of every other one."""
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])


def wilson(count: int, of: int) -> tuple[float, float]:
    """A 95 % interval of a rate (Wilson 1927)."""
    z = 1.959964
    middle = (count + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(count * (of - count) / of + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def write(out: Path, rows: list[Row], document: dict[str, Any]) -> None:
    """The table as CSV and everything as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), document)
    machine = {key: document[key] for key in ("source", "bundle", "dataset")} | document["hardware"]
    with atomic_path(out) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows(one | machine for one in rows)


if __name__ == "__main__":
    sys.exit(main())
