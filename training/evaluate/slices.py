"""How a model does on parts of the test set: by the dataset's own columns, and by image quality."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.calibrate import Floats
from training.evaluate.bootstrap import Interval
from training.evaluate.heads import Figures, Judged, figures, with_intervals

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 30
MOST_VALUES = 20
_RESAMPLES = 200
_META = "meta."
_ALSO = ("source", "verdict")
_MISSING = "(missing)"
#: The skin tone's angle has a column of classes beside it, which say more than quartiles.
_ANGLES = ("meta.ita",)


def slice_reports(
    heads: Mapping[str, tuple[Judged, NDArray[np.intp]]], frame: pd.DataFrame, *, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Figures per slice and head, and what was left out with the reason.

    ``heads`` gives each head's labelled images and their row numbers in ``frame``. Ages are binned by twenty
    years, other numbers by quartiles; a slice under 30 images or of one class is left out.
    """
    found: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for column in _columns(frame):
        groups, reason = _groups(frame[column], column)
        name = column.removeprefix(_META)
        if reason:
            skipped.append({"column": name, "reason": reason})
            continue
        for head, (judged, rows) in heads.items():
            for value, mask in groups:
                part = judged.take(mask[rows])
                why = _too_small(part)
                if why:
                    skipped.append({"column": name, "value": value, "head": head, "reason": why})
                    continue
                found.append({"column": name, "value": value, "head": head, **_report(part, seed)})
    return found, skipped


def gaps(slices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each column and head its best and its worst slice by AUC, and how far they lie apart.

    Slices of images whose value is missing count as none. A column with one slice has no gap.
    """
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for item in slices:
        value = item["auc"]["value"]
        if value is not None and item["value"] != _MISSING:
            found.setdefault((item["column"], item["head"]), []).append((value, item["value"]))
    return [
        {
            "column": column,
            "head": head,
            "metric": "auc",
            "worst": {"value": min(values)[1], "auc": min(values)[0]},
            "best": {"value": max(values)[1], "auc": max(values)[0]},
            "gap": max(values)[0] - min(values)[0],
        }
        for (column, head), values in found.items()
        if len(values) > 1
    ]


def _columns(frame: pd.DataFrame) -> Iterator[str]:
    for column in frame.columns:
        if column in _ANGLES:
            continue
        if column.startswith(_META) or (column in _ALSO and frame[column].nunique() > 1):
            yield column


def _groups(values: pd.Series[Any], column: str) -> tuple[list[tuple[str, NDArray[np.bool_]]], str | None]:
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    numeric = bool(numbers.notna().sum() == values.notna().sum()) and numbers.nunique() > 6
    if numeric and "age" in _words(column):
        names = _binned(numbers, np.arange(0, 121, 20))
    elif numeric:
        edges = np.unique(numbers.quantile([0, 0.25, 0.5, 0.75, 1]).to_numpy())
        names = _binned(numbers, edges)
    else:
        names = values.astype("string").fillna(_MISSING).str.strip().replace("", _MISSING)
    kinds = names.value_counts()
    if len(kinds) > MOST_VALUES:
        return [], f"{len(kinds)} different values, more than {MOST_VALUES}: an identifier, not a group"
    if len(kinds) < 2:
        return [], "one value only"
    return [(str(kind), (names == kind).to_numpy(dtype=bool)) for kind in sorted(kinds.index)], None


def _words(column: str) -> set[str]:
    """``meta.patientAge_years`` as meta, patient, age, years: an image's width is not an age."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", column)}


def _binned(numbers: pd.Series[Any], edges: NDArray[Any]) -> pd.Series[Any]:
    """Names of bins that hold their lower edge; the last one holds both."""
    import pandas as pd

    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    names = [f"{low:g} to under {high:g}" for low, high in itertools.pairwise(edges)]
    names[-1] = f"{edges[-2]:g} to {edges[-1]:g}"
    inside = (values >= edges[0]) & (values <= edges[-1])
    which = np.clip(
        np.searchsorted(edges, np.where(inside, values, edges[0]), side="right") - 1, 0, len(names) - 1
    )
    return pd.Series(np.where(inside, np.asarray(names)[which], _MISSING), index=numbers.index)


def _too_small(part: Judged) -> str | None:
    if len(part) < SMALLEST:
        return f"{len(part)} images, fewer than {SMALLEST}"
    if len(np.unique(part.truth)) < 2:
        return "images of one class only"
    return None


def _report(part: Judged, seed: int) -> dict[str, Any]:
    items = with_intervals(part, _RESAMPLES, seed, _few)
    return {
        "n": len(part),
        **{name: item.to_dict() for name, item in items.items() if isinstance(item, Interval)},
    }


def _few(judged: Judged, weights: Floats) -> Figures:
    names = ("auc", "accuracy", "balanced_accuracy", "kappa")
    return {name: value for name, value in figures(judged, weights).items() if name in names}
