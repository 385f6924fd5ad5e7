"""Answers and verdicts as windows, judged against the reference of the model that gave the answers.

Windows follow each other and share no image. Where the newest whole one ended is kept in the store, with what
was found, so that every gateway of the store judges the same windows, and an alarm outlives a restart.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import Conflict, NotFound, RetidermError
from data.paths import home
from serving.core.bundle import REFERENCE, Bundle
from serving.core.drift import SEVERITIES, DriftReport, Reference, Settings, Window, WindowInfo, judge
from serving.core.pointer import list_pointers, read_pointer
from serving.gateway.loop.windows import of_images, of_labels, unread_share
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import windows
from serving.gateway.store.repositories.windows import Kind
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import DriftWindow

#: ``newest`` is the newest whole window, or the running one while none is whole.
Which = Literal["newest", "running", "labels"]

#: Of a longer backlog only the newest windows are looked at: those before them can't change what stands.
_WINDOWS_AT_ONCE = 5
_TRIES = 5
#: Readers see doubtful images first. While more than this share of the audited ones is unread, those that
#: were read are not the images that chance drew.
_MOST_UNREAD = 0.2


@dataclass(frozen=True, slots=True)
class Side:
    """The newest whole window of a kind, if any is, and the one that is filling."""

    whole: DriftReport | None
    running: DriftReport

    @property
    def standing(self) -> DriftReport:
        """What stands: an alarm of the running window, unless the whole one's is graver; else the whole one.

        So an alarm stands until a newer whole window is without one.
        """
        if self.whole is None or (self.running.alarm and _gravity(self.running) >= _gravity(self.whole)):
            return self.running
        return self.whole

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the findings."""
        return {
            "whole": None if self.whole is None else _summary(self.whole),
            "running": _summary(self.running),
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a version's drift now: of images and answers, and of readers' verdicts."""

    version: str
    images: Side
    labels: Side

    @property
    def report(self) -> DriftReport:
        """Both in one: what the gauges, the page and the alerts tell."""
        found = self.images.standing
        return dataclasses.replace(found, findings=(*found.findings, *self.labels.standing.findings))

    def to_dict(self) -> dict[str, Any]:
        """The report, with where its windows stand."""
        sides = {"images": self.images.to_dict(), "labels": self.labels.to_dict()}
        return {**self.report.to_dict(), "version": self.version, "windows": sides}


@dataclass(frozen=True, slots=True)
class Served:
    """What serves a task, with its reference."""

    version: str
    bundle: Bundle
    reference: Reference


class Watch:
    """Judges windows. References of the bundles that served last stay open: their thresholds take time."""

    def __init__(self, store: Store, root: Path | None, settings: Settings | None = None) -> None:
        self._store = store
        self._root = root
        self.settings = settings or Settings()
        self._known: dict[str, Reference] = {}
        self._opening = threading.Lock()

    def standing(self, tenant: str, task: str) -> Standing:
        """Judge what has come since the last time. Takes seconds for a version's first: off the event loop.

        Raises:
            NotFound: the bundle that serves is not within reach, or has no reference.
        """
        served = self._served(task)
        return Standing(
            served.version,
            self._side(tenant, task, served, "images"),
            self._side(tenant, task, served, "labels"),
        )

    def window(self, tenant: str, task: str, which: Which = "newest") -> tuple[Window, WindowInfo]:
        """A window of the bundle that serves, as ``standing`` judges it.

        What was erased since is not in it. Nothing is judged or kept: the windows are those that the last
        judgement left.

        Raises:
            NotFound: the bundle that serves is not within reach.
        """
        bundle, _ = self.bundle(task)
        kind: Kind = "labels" if which == "labels" else "images"
        with self._store.read(tenant, "drift", paged=True) as scope:
            kept = windows.find(scope, bundle.digest, kind)
            cut = self._cut(scope, task, bundle.digest, kind, kept)
            whole = cut.whole or (
                (kept.first_number, kept.last_number) if kept and kept.last_number else None
            )
            if which == "running" or whole is None:
                whole = cut.running
            if kind == "labels":
                return of_labels(windows.reads(scope, task, bundle.digest, *whole), bundle)
            return of_images(windows.sights(scope, bundle.digest, *whole), bundle)

    def tasks(self) -> dict[str, str]:
        """Every task that is promoted, with its version.

        Raises:
            IntegrityError: a pointer is damaged.
        """
        return {task: found.version for task, found in list_pointers(self._place).items()}

    def answered(self, tenant: str, task: str) -> bool:
        """Whether there is anything to judge: an answer of the version that is promoted."""
        pointer = read_pointer(self._place, task)
        with self._store.read(tenant, "drift") as scope:
            return pointer is not None and bool(windows.numbers(scope, pointer.digest, most=1))

    @property
    def _place(self) -> Path:
        return self._root or home().serving

    def bundle(self, task: str) -> tuple[Bundle, str]:
        """What is promoted for a task, and its version.

        Raises:
            NotFound: nothing, or it can't be read here.
        """
        root = self._place
        try:
            pointer = read_pointer(root, task)
            if pointer is None:
                raise NotFound(
                    f"The bundle of {task!r} is not within reach of this gateway.",
                    hint="Say where promoted bundles lie: GATEWAY_SERVING_ROOT.",
                )
            return Bundle.open(pointer.folder(root), verify=False), pointer.version
        except NotFound:
            raise
        except RetidermError as error:
            raise NotFound(f"The bundle of {task!r} can't be read here: {error.code}.") from error

    def learned(self, task: str, digest: str) -> NDArray[np.float32] | None:
        """Embeddings [r, D] of images that this bundle learned from; None unless it serves within reach."""
        try:
            bundle, _ = self.bundle(task)
            if bundle.digest != digest or REFERENCE not in bundle.card.files:
                return None
            sample = bundle.arrays(REFERENCE).get("embedding_sample")
        except RetidermError:
            return None
        return None if sample is None else np.asarray(sample, np.float32)

    def _served(self, task: str) -> Served:
        bundle, version = self.bundle(task)
        with self._opening:
            if bundle.digest not in self._known:
                try:
                    found = Reference.of(bundle)
                except RetidermError as error:
                    raise NotFound(
                        f"The model {task!r} keeps no reference to judge drift by.",
                        hint="Models that were imported have none; train the task again.",
                    ) from error
                # Of each task the newest alone.
                self._known = {k: v for k, v in self._known.items() if v.task != task}
                self._known[bundle.digest] = found
            return Served(version, bundle, self._known[bundle.digest])

    def _side(self, tenant: str, task: str, served: Served, kind: Kind) -> Side:
        for _ in range(_TRIES):
            found = self._judged(tenant, task, served, kind)
            if found is not None:
                return found
        raise Conflict(f"The drift of {task!r} is being judged by others.", hint="Ask again.")

    def _judged(self, tenant: str, task: str, served: Served, kind: Kind) -> Side | None:
        """None where another gateway went on to a newer window meanwhile."""
        digest, reference, settings = served.bundle.digest, served.reference, self.settings
        with self._store.read(tenant, "drift", paged=True) as scope:
            kept = windows.find(scope, digest, kind)
            before = None if kept is None else kept.last_number
            standing = None if kept is None else _report(kept.report)
            alarmed = None if kept is None else _report(kept.running)
            cut = self._cut(scope, task, digest, kind, kept)

            def take(bounds: tuple[int, int]) -> tuple[Window, str | None]:
                if kind == "images":
                    return of_images(windows.sights(scope, digest, *bounds), served.bundle)[0], None
                rows = windows.reads(scope, task, digest, *bounds)
                share = unread_share(scope, task, digest, rows)
                return of_labels(rows, served.bundle)[0], _unfair(share)

            # Read here, judged after: the first judgement of a reference takes seconds.
            whole = take(cut.whole) if cut.whole else None
            running = take(cut.running)
        found = _held(judge(reference, running[0], settings), running[1])
        if whole is not None:
            newer = _held(judge(reference, whole[0], settings), whole[1])
            # What can't be judged is no word against an alarm.
            if standing is None or not (standing.alarm and newer.severity == "waiting"):
                standing = newer
        elif alarmed is not None and not found.alarm:
            found = alarmed  # an image was erased since: what was found in it was there
        side = Side(standing, found)
        if cut.whole is None and (found.alarm == (alarmed is not None)):
            return side
        first, last = cut.whole or ((kept.first_number, kept.last_number) if kept else (0, 0))
        with self._store.write(tenant, "drift") as scope:
            done = windows.keep(
                scope, task=task, digest=digest, kind=kind, before=before, first=first, last=last,
                report=None if standing is None else standing.to_dict(),
                running=found.to_dict() if found.alarm else None,
            )  # fmt: skip
        return side if done else None

    def _cut(self, scope: Scope, task: str, digest: str, kind: Kind, kept: DriftWindow | None) -> Cut:
        after, size = 0 if kept is None else kept.last_number, self.settings.size
        most = size * _WINDOWS_AT_ONCE
        if kind == "images":
            found = windows.numbers(scope, digest, after=after, most=most)
        else:
            found = windows.read_numbers(scope, task, digest, after=after, most=most)
        if scope.horizon is not None:
            # What others are writing still may belong before the rest.
            found = [number for number in found if number < scope.horizon]
        return Cut.of(found, size)


@dataclass(frozen=True, slots=True)
class Cut:
    """The first and last number of the newest whole window and of the running one; (1, 0) for nothing."""

    whole: tuple[int, int] | None
    running: tuple[int, int]

    @classmethod
    def of(cls, numbers: list[int], size: int) -> Cut:
        """Of everything that came after the last whole window, ascending."""
        end = len(numbers) // size * size
        whole = (numbers[end - size], numbers[end - 1]) if end else None
        return cls(whole, (numbers[end], numbers[-1]) if end < len(numbers) else (1, 0))


def _unfair(share: float) -> str | None:
    """Why labels are not judged, where too few of those that chance drew have been read."""
    if share <= _MOST_UNREAD:
        return None
    return (
        f"Not judged: {share:.0%} of the images that were drawn for the audit have not been read, "
        "and doubtful ones are read first."
    )


def _held(report: DriftReport, why: str | None) -> DriftReport:
    if why is None:
        return report
    waiting = [
        dataclasses.replace(found, severity="waiting", reason=why) if found.look else found
        for found in report.findings
    ]
    return dataclasses.replace(report, findings=tuple(waiting))


def _report(kept: Mapping[str, Any] | None) -> DriftReport | None:
    try:
        return None if kept is None else DriftReport.from_dict(kept)
    except (KeyError, TypeError):
        return None  # of another release


def _gravity(report: DriftReport) -> int:
    return SEVERITIES.index(report.severity) if report.alarm else 0


def _summary(report: DriftReport) -> dict[str, Any]:
    found = report.to_dict()
    return {name: found[name] for name in ("images", "look", "size", "alarm", "severity", "reason")}
