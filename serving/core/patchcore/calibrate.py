"""From scores of OK images, and of NG images where there are any, to a threshold: contract S4's rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import IntegrityError, RequestError

#: OK scores reach this percentile below the threshold, NG scores this one above it.
OK_PERCENTILE, NG_PERCENTILE = 99.0, 5.0
#: The margin over the OK scores where the NG scores overlap them.
OVERLAP_MARGIN = 1.02


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and what it was made of; the keys of ``calib.json`` and of S4's answer.

    ``threshold``, ``p99_ok`` and ``p5_ng`` (None without NG scores) are in squared L2. ``area_mm2_thr`` is
    the smallest region that is told, in mm²; ``score_percentile`` the percentile of the map that is the
    score.
    """

    threshold: float
    p99_ok: float | None
    p5_ng: float | None
    mm_per_px: float | None
    area_mm2_thr: float = 1.0
    score_percentile: float = 99.0

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types. A whole percentile is an int, as older readers wrote and expect it."""
        plain = asdict(self)
        if self.score_percentile == int(self.score_percentile):
            plain["score_percentile"] = int(self.score_percentile)
        return plain

    @classmethod
    def from_dict(cls, value: Any) -> Calibration:
        """Read ``calib.json``'s object. Keys that it doesn't know are left alone: older writers had more.

        Raises:
            IntegrityError: no threshold, or a value that is not a finite number in its range.
        """
        if not isinstance(value, Mapping):
            raise _wrong("it is not an object")
        if value.get("threshold") is None:
            raise _wrong("it has no threshold")
        area = _number(value, "area_mm2_thr")
        percentile = _number(value, "score_percentile")
        mm_per_px = _number(value, "mm_per_px")
        made = cls(
            threshold=_number(value, "threshold") or 0.0,
            p99_ok=_number(value, "p99_ok"),
            p5_ng=_number(value, "p5_ng"),
            mm_per_px=mm_per_px,
            area_mm2_thr=1.0 if area is None else area,
            score_percentile=99.0 if percentile is None else percentile,
        )
        if not 0 <= made.score_percentile <= 100:
            raise _wrong(f"score_percentile is {made.score_percentile:g}")
        if made.area_mm2_thr < 0:
            raise _wrong(f"area_mm2_thr is {made.area_mm2_thr:g}")
        if mm_per_px is not None and mm_per_px <= 0:
            raise _wrong(f"mm_per_px is {mm_per_px:g}")
        return made

    def squared(self) -> Calibration:
        """The same calibration of scores that were Euclidean distances, in squared L2."""
        return Calibration(
            threshold=self.threshold**2,
            p99_ok=None if self.p99_ok is None else self.p99_ok**2,
            p5_ng=None if self.p5_ng is None else self.p5_ng**2,
            mm_per_px=self.mm_per_px,
            area_mm2_thr=self.area_mm2_thr,
            score_percentile=self.score_percentile,
        )


def calibrate(
    ok_scores: Sequence[float] | NDArray[np.floating[Any]],
    ng_scores: Sequence[float] | NDArray[np.floating[Any]] | None = None,
    *,
    mm_per_px: float,
    area_mm2_thr: float = 1.0,
    score_percentile: float = 99,
) -> Calibration:
    """Choose the threshold: p99(OK); with NG scores the midpoint of p99(OK) and p5(NG); if those overlap
    (p5(NG) ≤ p99(OK)), 1.02 · p99(OK).

    Percentiles interpolate linearly. An empty list of NG scores is no NG scores.

    Raises:
        RequestError: no OK score, a score that is negative or not a finite number, ``mm_per_px`` that is not
            positive, ``area_mm2_thr`` that is negative, ``score_percentile`` outside 0 to 100.
    """
    check_mm_per_px(mm_per_px)
    if not (_finite(area_mm2_thr) and area_mm2_thr >= 0):
        raise RequestError(f"area_mm2_thr is {area_mm2_thr!r}.", hint="Give an area in mm² of at least 0.")
    if not (_finite(score_percentile) and 0 <= score_percentile <= 100):
        raise RequestError(f"score_percentile is {score_percentile!r}.", hint="Give a number from 0 to 100.")
    ok = _scores(ok_scores, "ok_scores")
    if not ok.size:
        raise RequestError(
            "There is no OK score, so there is no threshold.",
            hint="Score at least one OK image with /infer and send its score in ok_scores.",
        )
    ng = _scores(ng_scores, "ng_scores") if ng_scores is not None else ok[:0]
    p99_ok = float(np.percentile(ok, OK_PERCENTILE))
    p5_ng = float(np.percentile(ng, NG_PERCENTILE)) if ng.size else None
    if p5_ng is None:
        threshold = p99_ok
    elif p5_ng > p99_ok:
        threshold = 0.5 * (p99_ok + p5_ng)
    else:
        threshold = OVERLAP_MARGIN * p99_ok
    if not math.isfinite(threshold):
        raise RequestError(
            "The scores are so large that their threshold is no finite number.",
            hint="Send the scores as /infer gave them.",
        )
    return Calibration(
        threshold, p99_ok, p5_ng, float(mm_per_px), float(area_mm2_thr), float(score_percentile)
    )


def check_mm_per_px(value: float) -> float:
    """``value``, if it is a finite number above zero; else ``RequestError``."""
    if not (_finite(value) and value > 0):
        raise RequestError(
            f"mm_per_px is {value!r}.", hint="Give the width of a pixel in millimetres, above zero."
        )
    return float(value)


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _scores(values: Sequence[float] | NDArray[np.floating[Any]], name: str) -> NDArray[np.float64]:
    try:
        scores = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        scores = np.array(math.nan)
    if scores.size == 0:
        return np.zeros(0)
    if scores.ndim != 1 or not np.isfinite(scores).all() or scores.min() < 0:
        raise RequestError(
            f"{name} must be a list of finite numbers of at least 0.",
            hint="Send the scores as /infer gave them; one that is missing has no place in the list.",
        )
    return scores


def _number(value: Mapping[str, Any], key: str) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    if not _finite(found):
        raise _wrong(f"{key} is {found!r}")
    return float(found)


def _wrong(what: str) -> IntegrityError:
    return IntegrityError(
        f"The calibration can't be used: {what}.", hint="Calibrate the ROI again with /calibrate_ng."
    )
