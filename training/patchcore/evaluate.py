"""How well a memory finds what is wrong: of images, of pixels, of regions. Only decisions need a threshold.

- ``auc``: area under the ROC curve of image scores; how often an NG image scores above an OK one, ties half.
- ``best_f1``: the highest F1 over all thresholds, and its threshold: what an oracle would choose. It is told,
  never used, since it is read off the very images it is measured on.
- ``pixel_auroc``: the ROC curve's area over all pixels of all images (Bergmann et al., MVTec AD, CVPR 2019).
- ``pro``: the per-region overlap, averaged over the regions of the masks, over the false-positive rate of
  pixels, integrated up to 0.3 and divided by it (Bergmann et al., Uninformed Students, CVPR 2020): a small
  defect counts as much as a large one.

Pixels are counted at the size of the model's input, in bins of equal relative width, one image at a time, so
that any number of images fits in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.progress import track
from training.evaluate import metrics

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task

Floats = NDArray[np.float64]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: PRO is integrated up to this share of the OK pixels, the limit that its authors chose.
PRO_LIMIT = 0.3

# A float32 above 0 orders as its own bits do; 12 of its 23 bits of fraction make bins of a relative width of
# 1/4096. Two pixels in one bin count as a tie, which moves a pixel AUROC by about 1e-6.
_DROPPED_BITS = 11
_TOP = float(np.nextafter(np.float32(8.0), np.float32(0.0)))
_BINS = (int(np.float32(_TOP).view(np.uint32)) >> _DROPPED_BITS) + 1


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """Figures of N images with scores. None where they are not defined: no NG image, no OK image."""

    images: int
    ok: int
    ng: int
    auc: float | None
    best_f1: float | None
    best_f1_threshold: float | None


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a threshold makes of the scores: NG from it on. Rates are None where they are not defined."""

    threshold: float
    true_ng: int
    false_ng: int
    true_ok: int
    false_ok: int
    accuracy: float | None
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class PixelFigures:
    """Figures of pixels; ``images`` took part, ``masks`` of them with a mask, with ``regions`` in all."""

    images: int
    masks: int
    regions: int
    pixel_auroc: float | None
    pro: float | None

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self)


def image_figures(scores: NDArray[np.floating[Any]], ng: Mask) -> ImageFigures:
    """Figures of images: ``scores`` [N], ``ng`` [N] true where the image is not OK."""
    scores = _finite(scores)
    positive, count = int(ng.sum()), len(ng)
    area = metrics.auc(np.ones((1, count)), scores, ng)[0] if count else np.nan
    best, at = _best_f1(scores, ng)
    return ImageFigures(count, count - positive, positive, _some(float(area)), best, at)


def decisions(scores: NDArray[np.floating[Any]], ng: Mask, threshold: float) -> Decisions:
    """What ``score >= threshold`` decides, against the truth."""
    called = _finite(scores) >= threshold
    hit, alarm = int((called & ng).sum()), int((called & ~ng).sum())
    quiet, missed = int((~called & ~ng).sum()), int((~called & ng).sum())
    recall, specificity = _share(hit, hit + missed), _share(quiet, quiet + alarm)
    both = None if recall is None or specificity is None else (recall + specificity) / 2
    return Decisions(
        threshold=float(threshold),
        true_ng=hit,
        false_ng=alarm,
        true_ok=quiet,
        false_ok=missed,
        accuracy=_share(hit + quiet, len(called)),
        balanced_accuracy=both,
        precision=_share(hit, hit + alarm),
        recall=recall,
        f1=_share(2 * hit, 2 * hit + alarm + missed) if hit + missed else None,
    )


class PixelTally:
    """Counts pixels by their value, an image at a time. :meth:`add` every image, then :meth:`figures`."""

    def __init__(self) -> None:
        self._good = np.zeros(_BINS, np.int64)
        self._bad = np.zeros(_BINS, np.int64)
        #: Every region's pixels, each worth one part of its region's area.
        self._overlap = np.zeros(_BINS, np.float64)
        self._images = self._masks = self._regions = 0

    def add(self, map_: Map, mask: Mask | None) -> None:
        """Count one image's map [h, w]; ``mask`` [h, w] marks its defects, None for an OK image.

        An NG image without a mask must be left out: nobody knows which of its pixels are which.
        """
        values = np.ascontiguousarray(np.clip(_finite(map_).astype(np.float32), 0.0, _TOP))
        bins = (values.view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
        self._images += 1
        if mask is None:
            self._good += np.bincount(bins.ravel(), minlength=_BINS)
            return
        if mask.shape != values.shape:
            raise DataError(f"A mask of {mask.shape} px for a map of {values.shape}.", hint="Ingest again.")
        self._masks += 1
        self._good += np.bincount(bins[~mask], minlength=_BINS)
        self._bad += np.bincount(bins[mask], minlength=_BINS)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        self._regions += count - 1
        for label in range(1, count):
            inside = bins[labels == label]
            self._overlap += np.bincount(inside, minlength=_BINS) / len(inside)

    def curve(self) -> tuple[Floats, Floats, Floats]:
        """False-positive rate, true-positive rate and mean region overlap, from the highest value down.

        NaN where there is nothing to divide by.
        """
        used = np.flatnonzero((self._good + self._bad) > 0)[::-1]

        def rising(counts: NDArray[Any], total: float) -> Floats:
            climbed = np.r_[0.0, np.cumsum(counts[used], dtype=np.float64)]
            return climbed / total if total else np.full(len(climbed), np.nan)

        return (
            rising(self._good, float(self._good.sum())),
            rising(self._bad, float(self._bad.sum())),
            rising(self._overlap, float(self._regions)),
        )

    def figures(self) -> PixelFigures:
        """The areas under the curves."""
        false, true, overlap = self.curve()
        return PixelFigures(
            self._images,
            self._masks,
            self._regions,
            _some(float(np.trapezoid(true, false))),
            _some(area_up_to(false, overlap, PRO_LIMIT)),
        )


def area_up_to(x: Floats, y: Floats, limit: float) -> float:
    """The area under a rising curve from x = 0 to ``limit``, divided by it; its end is interpolated.

    NaN where the curve is not defined.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    inside = x <= limit
    xs, ys = x[inside], y[inside]
    if not inside.all():
        xs, ys = np.r_[xs, limit], np.r_[ys, np.interp(limit, x, y)]
    return float(np.trapezoid(ys, xs) / limit)


def tally_pixels(
    dataset: Dataset,
    task: Task,
    ids: Sequence[str],
    ng: Mask,
    map_of: Callable[[int], Map],
) -> PixelTally:
    """Count the pixels of a dataset's images; ``map_of(i)`` gives the map of ``ids[i]`` at the input's size.

    OK images count as all OK; NG images without a mask are left out.
    """
    masks = MaskReader(dataset, task)
    tally = PixelTally()
    for i in track(range(len(ids)), "Judging pixels", total=len(ids)):
        mask = masks(ids[i]) if ng[i] else None
        if mask is not None or not ng[i]:
            tally.add(map_of(i), mask)
    return tally


class MaskReader:
    """A dataset's masks by id, as the task's input shows them; None where an image has none."""

    def __init__(self, dataset: Dataset, task: Task) -> None:
        from data.dataset import MASK

        frame = dataset.frame()
        self._dataset, self._preprocessing = dataset, task.preprocessing
        self._rows: dict[str, tuple[str, str]] = {}
        if MASK in frame.columns:
            for name, path, mask in zip(frame["id"], frame["path"], frame[MASK], strict=True):
                if isinstance(mask, str):
                    self._rows[str(name)] = (str(path), mask)

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, name: str) -> Mask | None:
        """The mask of an image, bool [h, w] of the task's input size."""
        from data.image import STORED_LIMITS
        from data.masks import fit_mask, read_mask

        if name not in self._rows:
            return None
        path, mask = self._rows[name]
        rgb = None
        if self._preprocessing.crop != "none":  # only then does the image decide what is shown
            data = self._dataset.image_path(path).read_bytes()
            rgb = self._preprocessing.decode(data, STORED_LIMITS)
        marked = read_mask(self._dataset.image_path(mask).read_bytes())
        return fit_mask(marked, self._preprocessing, rgb)


def _best_f1(scores: Floats, ng: Mask) -> tuple[float | None, float | None]:
    if not ng.any():
        return None, None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(ng[order])
    # Only where the next score is lower does a threshold lie.
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    f1 = 2 * hits[ends] / (ends + 1 + ng.sum())
    best = int(np.argmax(f1))
    return float(f1[best]), float(ranked[ends[best]])


def _finite(values: NDArray[np.floating[Any]]) -> Floats:
    if not np.isfinite(values).all():
        raise DataError("A score or map holds a value that is no finite number, so it can't be judged.")
    return np.asarray(values, np.float64)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _some(value: float) -> float | None:
    return None if np.isnan(value) else value
