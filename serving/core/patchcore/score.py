"""From patch distances to a map, a score, a picture and regions: contract S4's inference, step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError, ServingError
from serving.core.patchcore.calibrate import Calibration, check_mm_per_px
from serving.core.patchcore.shape import ShapeMask

__all__ = [
    "Region",
    "Scored",
    "ShapeMask",
    "anomaly_map",
    "evaluate_roi",
    "heatmap",
    "image_score",
    "regions",
]

#: The part of the map's range, inside the mask, that a picture shows.
PICTURE_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True, slots=True)
class Region:
    """A place that reaches the threshold: ``bbox`` (x, y, w, h) and ``contour`` ((x, y), …) in map pixels.

    ``area_px`` counts the region's own pixels (holes are no part of it), ``area_mm2`` is the same in mm².
    """

    bbox: tuple[int, int, int, int]
    area_px: float
    area_mm2: float
    contour: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """A scored ROI: ``map`` float32 [h, w], ``heatmap`` uint8 [h, w], ``regions`` largest first."""

    map: NDArray[np.float32]
    score: float
    regions: tuple[Region, ...]
    heatmap: NDArray[np.uint8]


def anomaly_map(
    distances: NDArray[np.float32], size: tuple[int, int], blur_sigma: float = 1.0
) -> NDArray[np.float32]:
    """Distances [Ht, Wt] upsampled bilinearly to ``size`` (h, w), then blurred by a Gaussian (0: not at all).

    Raises:
        ServingError: a distance is not a finite number.
    """
    if not np.isfinite(distances).all():
        raise ServingError(
            "A patch distance is not a finite number, so there is no answer.",
            hint="Check the extractor: retiderm anomaly extractor builds it.",
        )
    height, width = size
    grid = np.ascontiguousarray(distances, np.float32)
    upsampled = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    if blur_sigma > 0:
        upsampled = cv2.GaussianBlur(upsampled, (0, 0), blur_sigma)
    return np.asarray(upsampled, np.float32).reshape(height, width)


def image_score(map_: NDArray[np.float32], mask: NDArray[np.bool_], percentile: float = 99) -> float:
    """The percentile of the map inside the mask, interpolated linearly.

    It never falls when a value inside rises, to the last bit, and no value outside has a part in it.

    Raises:
        RequestError: the mask is empty or of another size.
    """
    (value,) = _percentiles(_inside(map_, mask), (percentile,))
    return value


def heatmap(map_: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The map as grey levels, its 1–99 % range inside the mask from 0 to 255; zero outside the mask."""
    low, high = _percentiles(_inside(map_, mask), PICTURE_PERCENTILES)
    return _picture(map_, mask, low, high)


def regions(
    map_: NDArray[np.float32],
    mask: NDArray[np.bool_],
    threshold: float,
    mm_per_px: float,
    area_mm2_thr: float = 1.0,
) -> tuple[Region, ...]:
    """Connected places (by side or corner) where the map inside the mask is at least ``threshold``.

    Islands below ``area_mm2_thr`` are dropped; the largest comes first, ties from the top left.
    """
    check_mm_per_px(mm_per_px)
    _inside(map_, mask)
    binary = ((map_ >= threshold) & mask).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        area_mm2 = area * mm_per_px * mm_per_px
        if area_mm2 < area_mm2_thr:
            continue
        part = (labels[y : y + height, x : x + width] == label).astype(np.uint8)
        contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
        points = tuple((int(px), int(py)) for px, py in contours[0].reshape(-1, 2))
        found.append(Region((x, y, width, height), float(area), area_mm2, points))
    return tuple(sorted(found, key=lambda region: (-region.area_px, region.bbox[1], region.bbox[0])))


def evaluate_roi(
    distances: NDArray[np.float32],
    size: tuple[int, int],
    *,
    mm_per_px: float,
    mask: NDArray[np.bool_] | None = None,
    calibration: Calibration | None = None,
    blur_sigma: float = 1.0,
) -> Scored:
    """All of S4's steps from patch distances [Ht, Wt] to what ``/infer`` tells of a ROI of ``size`` (h, w).

    Without a calibration there are no regions and the score is the 99th percentile. ``mask`` None is the
    whole ROI. Raises as the steps do.
    """
    check_mm_per_px(mm_per_px)
    map_ = anomaly_map(distances, size, blur_sigma)
    inside = np.ones(size, bool) if mask is None else mask
    percentile = 99.0 if calibration is None else calibration.score_percentile
    found: tuple[Region, ...] = ()
    if calibration is not None:
        found = regions(map_, inside, calibration.threshold, mm_per_px, calibration.area_mm2_thr)
    # One sort of the values serves the score and the picture's range.
    score, low, high = _percentiles(_inside(map_, inside), (percentile, *PICTURE_PERCENTILES))
    return Scored(map_, score, found, _picture(map_, inside, low, high))


def _inside(map_: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    if mask.shape != map_.shape or mask.dtype != np.bool_:
        raise RequestError(f"The mask is {mask.dtype} {list(mask.shape)}, the map {list(map_.shape)}.")
    values = map_[mask]
    if not values.size:
        raise RequestError("The mask leaves no pixel of the ROI.", hint="Give a shape that lies inside it.")
    return values


def _picture(
    map_: NDArray[np.float32], mask: NDArray[np.bool_], low: float, high: float
) -> NDArray[np.uint8]:
    if not high > low:
        return np.zeros(map_.shape, np.uint8)
    above = np.clip(map_, np.float32(low), np.float32(high))
    above -= np.float32(low)
    picture = cv2.convertScaleAbs(above, alpha=255.0 / (high - low)).reshape(map_.shape)
    return np.where(mask, picture, np.uint8(0)).astype(np.uint8, copy=False)


def _percentiles(values: NDArray[np.float32], percentiles: tuple[float, ...]) -> tuple[float, ...]:
    """As ``np.percentile``, but never falling when a value rises: a + (b − a)·t may fall by a rounding."""
    places = [(values.size - 1) * percentile / 100.0 for percentile in percentiles]
    ends = sorted({end for place in places for end in (math.floor(place), math.ceil(place))})
    part = np.partition(values, ends)
    found = []
    for place in places:
        low, high = float(part[math.floor(place)]), float(part[math.ceil(place)])
        weight = place - math.floor(place)
        found.append(min(max((1 - weight) * low + weight * high, low), high))
    return tuple(found)
