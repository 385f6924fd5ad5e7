"""Windows on disk, judged: a report and a page for each. What the command and the component share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError, UsageError
from data.files import write_json
from serving.core.bundle import Bundle
from serving.core.drift import DriftReport, Reference, Settings, WindowInfo, judge, read_window
from serving.core.drift.folder import INFO

#: Of a judged window, in the folder that was asked for, below the window's name.
REPORT, PAGE = "report.json", "page.html"


@dataclass(frozen=True, slots=True)
class Judged:
    """A window's name, what it is of, and what was found. ``document`` is all of it as plain JSON values."""

    name: str
    info: WindowInfo
    report: DriftReport

    @property
    def of_labels(self) -> bool:
        """Whether it is a window of labels."""
        return all(finding.family == "outcomes" for finding in self.report.findings)

    @property
    def document(self) -> dict[str, Any]:
        """As it is written to ``report.json``."""
        return {
            "window": self.name,
            "version": self.info.version,
            "started_at": self.info.started_at,
            "ended_at": self.info.ended_at,
            **self.report.to_dict(),
        }


def find_windows(place: Path) -> list[Path]:
    """A window's folder itself, or those directly in a folder, by their first image's time, then by name.

    Raises:
        DataError: there is none.
    """
    if (place / INFO).is_file():
        return [place]
    found = [path.parent for path in sorted(place.glob(f"*/{INFO}")) if not path.parent.name.startswith(".")]
    if not found:
        raise DataError(
            f"There is no window at {place}.", hint="Make one: retiderm drift window IMAGES --bundle DIR."
        )
    started = {path: read_window(path)[1].started_at or "" for path in found}
    return sorted(found, key=lambda path: (started[path], path.name))


def judge_windows(
    bundle: Bundle,
    places: Sequence[Path],
    settings: Settings,
    *,
    out: Path | None = None,
    page: bool = True,
) -> list[Judged]:
    """Judge windows, and keep a folder of each in ``out``: ``report.json``, and ``page.html`` if asked for.

    A folder of windows may hold those of other models (a promotion lies between): they are left out.

    Raises:
        UsageError: a window that was named itself is of another model, or none is of this one.
        DataError: a window can't be read.
    """
    reference = Reference.of(bundle)
    found: list[Judged] = []
    passed = 0
    for place in places:
        for path in find_windows(Path(place)):
            window, info = read_window(path)
            if info.bundle_digest != bundle.digest:
                if path == Path(place):
                    raise _another(path, info, bundle)
                passed += 1
                continue
            judged = Judged(path.name, info, judge(reference, window, settings))
            found.append(judged)
            if out is None:
                continue
            folder = Path(out) / path.name
            write_json(folder / REPORT, judged.document)
            # Labels are no distribution that could be drawn.
            if page and judged.report.look and not window.of_labels:
                from training.drift.page import write_page

                write_page(folder / PAGE, judged.report, reference, window)
    if not found:
        raise UsageError(
            f"None of the {passed} windows is of the bundle {bundle.digest}.",
            hint="Name the bundle that gave the answers.",
        )
    return found


def standing(found: Sequence[Judged]) -> list[Judged]:
    """Of windows in their order the newest whole one and those after it, of images and of labels apart.

    An alarm stands until a newer whole window is without one.
    """
    kept: list[Judged] = []
    for labels in (False, True):
        ours = [one for one in found if one.of_labels == labels]
        whole = [at for at, one in enumerate(ours) if one.report.images >= one.report.size]
        kept += ours[whole[-1] if whole else 0 :]
    return kept


def _another(path: Path, info: WindowInfo, bundle: Bundle) -> UsageError:
    return UsageError(
        f"The window {path} holds answers of {info.bundle_digest}, not of {bundle.digest}.",
        hint="Name the bundle that gave the answers: another model's are no measure of drift.",
    )
