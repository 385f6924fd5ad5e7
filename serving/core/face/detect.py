"""Where faces may be: BlazeFace, in its short-range and its full-range form.

BlazeFace (Bazarevsky et al. 2019, arXiv 1907.05047) looks at a small square picture once and gives, for each
of a fixed set of places (anchors), how likely a face is there, its box and six points. A place's many
near-equal answers are blended, each weighted by its score, which shakes less than keeping the best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.core.face.models import FULL_RANGE, SHORT_RANGE, Network, read_model

Floats = NDArray[np.float64]

# Sums of one face's answers whose boxes overlap by more than this (intersection over union).
_BLEND_OVER = 0.3
# Two boxes are of one face when the smaller lies in the larger by more than this.
_SAME_OVER = 0.5
_POINTS = 6
# A score is a sigmoid; beyond this it is 0 or 1, and exp would overflow.
_STEEP = 80.0


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A place that may hold a face: corners ``low`` and ``high`` ``[2]``, ``points`` ``[6, 2]``, in pixels.

    The points: right eye, left eye, tip of the nose, mouth, right ear, left ear.
    """

    score: float
    low: Floats
    high: Floats
    points: Floats

    def moved(self, right: float, down: float) -> Detection:
        """The same place, seen in a picture that this one is a part of."""
        way = np.array([right, down])
        return Detection(self.score, self.low + way, self.high + way, self.points + way)


@dataclass(frozen=True, slots=True)
class Form:
    """A form of BlazeFace: its file, the side of its picture, and its anchors as (stride, anchors a cell)."""

    file: str
    side: int
    layers: tuple[tuple[int, int], ...]

    def anchors(self) -> Floats:
        """The anchors' centres ``[N, 2]``, as shares of the side, in the order of the network's outputs."""
        rows = []
        for stride, each in self.layers:
            cells = self.side // stride
            y, x = np.divmod(np.arange(cells * cells), cells)
            rows.append(np.repeat((np.stack([x, y], axis=1) + 0.5) / cells, each, axis=0))
        return np.concatenate(rows)


# Selfies: faces that fill a fifth of the frame or more. 896 anchors.
SHORT = Form(SHORT_RANGE, 128, ((8, 2), (16, 6)))
# People further off: faces from about a twentieth of the frame, and poor at those that fill it. 2304 anchors.
FULL = Form(FULL_RANGE, 192, ((4, 1),))


class Detector:
    """One form of BlazeFace. For one thread at a time."""

    def __init__(self, form: Form) -> None:
        self._network = Network(read_model(form.file))
        self._side = form.side
        self._anchors = form.anchors()

    def detect(self, rgb: NDArray[np.uint8], score: float) -> list[Detection]:
        """Places of at least ``score`` in ``uint8 [H, W, 3]``, best first, each face's answers blended."""
        height, width = rgb.shape[:2]
        scale = self._side / max(height, width)
        canvas, shift = self._letterbox(rgb, scale)
        boxes, logits = self._network.run(canvas)
        scores = 1 / (1 + np.exp(-np.clip(logits[:, 0].astype(np.float64), -_STEEP, _STEEP)))
        kept = scores >= score
        values = boxes[kept].astype(np.float64)
        anchors = self._anchors[kept] * self._side
        centre, half = values[:, :2] + anchors, values[:, 2:4] / 2
        points = values[:, 4:].reshape(-1, _POINTS, 2) + anchors[:, None]
        return [
            Detection(
                found.score, *((part - shift) / scale for part in (found.low, found.high, found.points))
            )
            for found in blend(scores[kept], centre - half, centre + half, points)
        ]

    def _letterbox(self, rgb: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.float32], Floats]:
        """The picture in the middle of the network's square, in -1 to 1, and where its corner lies there."""
        height, width = rgb.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        left, top = (self._side - size[0]) // 2, (self._side - size[1]) // 2
        canvas = np.full((self._side, self._side, 3), -1, np.float32)
        canvas[top : top + size[1], left : left + size[0]] = small.astype(np.float32) / 127.5 - 1
        return canvas, np.array([left, top], np.float64)


def blend(scores: Floats, low: Floats, high: Floats, points: Floats) -> list[Detection]:
    """Weighted non-maximum suppression: one detection a group of overlapping answers, best first.

    A group is what overlaps its best answer by more than 0.3; its box and points are means weighted by score,
    its score the best one's.
    """
    order = np.argsort(-scores, kind="stable")
    found = []
    while len(order):
        best = order[0]
        same = overlap(low[best], high[best], low[order], high[order]) > _BLEND_OVER
        same[0] = True  # also where a box has no area, so that every round takes at least one away
        group = order[same]
        weights = scores[group] / scores[group].sum()
        found.append(
            Detection(
                float(scores[best]),
                *(np.tensordot(weights, values[group], 1) for values in (low, high, points)),
            )
        )
        order = order[~same]
    return found


def overlap(low: Floats, high: Floats, lows: Floats, highs: Floats) -> Floats:
    """Intersection over union of one box with each of ``[N, 2]``."""
    inside = np.clip(np.minimum(high, highs) - np.maximum(low, lows), 0, None).prod(axis=1)
    union = (high - low).prod() + (highs - lows).prod(axis=1) - inside
    return np.asarray(inside / np.maximum(union, 1e-9), np.float64)


def same_face(low: Floats, high: Floats, other_low: Floats, other_high: Floats) -> bool:
    """Whether two boxes are of one face: the smaller lies mostly in the larger."""
    inside = np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None).prod()
    smaller = min((high - low).prod(), (other_high - other_low).prod())
    return bool(inside > _SAME_OVER * smaller)


def distinct(detections: Sequence[Detection]) -> list[Detection]:
    """The detections of both forms without those of a face that a better one has, best first."""
    kept: list[Detection] = []
    for one in sorted(detections, key=lambda item: -item.score):
        if not any(same_face(one.low, one.high, other.low, other.high) for other in kept):
            kept.append(one)
    return kept
