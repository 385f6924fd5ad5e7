"""When it is time to train again: by hand, or when enough labels have gathered, or some and drift."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.errors import UsageError
from data.files import read_json
from training.loop.report import changes

#: Where no number is given: a twentieth of the dataset that labels are added to, and no fewer than this.
LEAST_LABELS, SHARE = 50, 0.05


@dataclass(frozen=True, slots=True)
class Trigger:
    """What must have gathered. ``always``: anything new. ``labels``: so many new or changed ones (None: the
    default). ``drift``: the JSON of a drift report; while it alarms, any label is enough. ``anyway``: with
    ``always``, also where nothing is new."""

    always: bool = True
    labels: int | None = None
    drift: str = ""
    anyway: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Trigger:
        """The reverse of :meth:`to_dict`."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Drift:
    """A drift report's verdict."""

    alarm: bool
    severity: str
    reason: str
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Due:
    """Whether it is time, and in a sentence why or what is waited for."""

    due: bool
    sentence: str
    gathered: int
    needed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        return asdict(self)


def needed(report: Mapping[str, Any], trigger: Trigger) -> int:
    """How many new or changed labels are enough."""
    if trigger.labels is not None:
        return max(1, trigger.labels)
    return max(LEAST_LABELS, math.ceil(SHARE * int(report["base"]["images"])))


def nothing_new(report: Mapping[str, Any], learned: Collection[str]) -> bool:
    """Whether the dataset would be one that a version has learned from: no label, no erasure changes it.

    ``learned`` are those versions' dataset digests. What readers disagree on is something new: the step that
    reads the labels says so.
    """
    counts = report["counts"]
    same = not (changes(report) or report["test_changes"] or counts["outcomes"].get("conflict"))
    return same and not any(counts["erased"].values()) and report["base"]["digest"] in learned


def judge(
    task: str,
    trigger: Trigger,
    report: Mapping[str, Any],
    *,
    serves: str = "",
    learned: Collection[str] = (),
) -> Due:
    """Whether it is time to train again.

    ``report`` is that of :func:`training.loop.report.review_report`; ``serves`` the champion's bundle digest:
    a drift report on another version says nothing about it. ``learned``: as for :func:`nothing_new`.
    """
    gathered, wanted = changes(report), needed(report, trigger)
    count = f"{gathered} of {wanted} labels"
    if trigger.always:
        if not trigger.anyway and nothing_new(report, learned):
            said = "nothing new: a version has learned from this dataset, and no label changes it"
            return Due(False, said, gathered, wanted)
        return Due(True, "asked for by hand or by schedule", gathered, wanted)
    if gathered >= wanted:
        return Due(True, f"enough labels ({count})", gathered, wanted)
    drift = read_drift(Path(trigger.drift), task) if trigger.drift else None
    if drift is not None and drift.alarm and (not serves or drift.digest in ("", serves)):
        if gathered:
            return Due(True, f"drift, and {count}: {drift.reason}", gathered, wanted)
        return Due(False, f"drift, but no new label to learn it from: {drift.reason}", gathered, wanted)
    return Due(False, f"waits for labels ({count})", gathered, wanted)


def read_drift(path: Path, task: str) -> Drift | None:
    """The verdict of ``retiderm drift``'s JSON; None where there is no report yet.

    Raises:
        UsageError: the file is no drift report, or another task's.
    """
    if not path.is_file():
        return None
    try:
        told = read_json(path)
        found = Drift(
            bool(told["alarm"]),
            str(told["severity"]),
            str(told["reason"]),
            str(told.get("bundle_digest", "")),
        )
        of = str(told["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no drift report: {error}.", hint="Give the JSON that `retiderm drift` writes."
        ) from error
    if of != task:
        raise UsageError(f"{path} is the drift report of {of}, not of {task}.")
    return found
