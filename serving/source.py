"""Which bundles this process serves: what a serving root points at, of every task, or one bundle's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data.errors import IntegrityError, RetidermError, UsageError
from serving.core.bundle import Bundle
from serving.core.challenger import challenger_name, check_mode, read_challenger
from serving.core.pointer import FILE, Pointer, read_pointer

_LOG = logging.getLogger("retiderm.serving")

UNREGISTERED = "unregistered"


@dataclass(frozen=True, slots=True)
class Served:
    """A bundle to serve: its task, its registry version, its digest, where it lies.

    ``mode`` is ``shadow`` or ``share`` for one that answers beside the champion, under a name of its own, and
    ``share`` how much of the requests; for a champion they are empty.
    """

    task: str
    version: str
    digest: str
    folder: Path
    mode: str = ""
    share: float = 0.0

    @property
    def name(self) -> str:
        """The model's name on the wire."""
        return challenger_name(self.task) if self.mode else self.task

    def same_model(self, other: Served | None) -> bool:
        """Whether ``other`` is the same bundle under the same name, whatever share it answers."""
        return other is not None and (self.name, self.bundle) == (other.name, other.bundle)

    @property
    def bundle(self) -> tuple[str, str, Path]:
        """Version, digest and folder: what doesn't change when a challenger becomes champion."""
        return self.version, self.digest, self.folder

    def open(self, *, verify: bool) -> Bundle:
        """Open the bundle and make sure that it is the one that was meant.

        Raises:
            BundleError: it is incomplete or altered.
            IntegrityError: it is whole, but another one.
        """
        bundle = Bundle.open(self.folder, verify=verify)
        if bundle.digest != self.digest or bundle.card.task != self.task:
            raise IntegrityError(
                f"{self.folder} holds {bundle.card.task} {bundle.digest}, not {self.task} {self.digest}.",
                hint="`retiderm models reconcile` copies the promoted version again.",
            )
        return bundle


class Source(Protocol):
    """Where what serves is named. ``scan`` is cheap and is called every second."""

    def scan(self) -> dict[str, Served]:
        """What to serve now, by the model's name; what can't be read keeps what it was before."""


class RootSource:
    """A serving root, whose pointers promotions write: a champion of each task, and a challenger of some."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: dict[str, Served] = {}
        self._complained: dict[str, str] = {}

    def scan(self) -> dict[str, Served]:
        """Read every pointer. One that is damaged or half written changes nothing.

        Nor does a champion's that is gone, since nobody takes a champion away. A challenger's that is gone
        beside its champion's was withdrawn.
        """
        tasks = self._tasks()
        for task in tasks:
            try:
                pointer = read_pointer(self._root, task)
            except RetidermError as error:
                self._complain(task, str(error))
                continue
            if pointer is not None:
                self._complained.pop(task, None)
                self._last[task] = self._served(pointer)
            self._look_beside(task, tasks)
        return dict(self._last)

    def _look_beside(self, task: str, tasks: Sequence[str]) -> None:
        name = challenger_name(task)
        if name in tasks:  # a task of that name: it was there first, and serves
            return
        try:
            found = read_challenger(self._root, task)
        except RetidermError as error:
            self._complain(name, str(error))
            return
        self._complained.pop(name, None)
        if found is None:
            self._last.pop(name, None)
        else:
            self._last[name] = self._served(found.pointer, found.mode, found.share)

    def _tasks(self) -> list[str]:
        if not self._root.is_dir():
            return []
        return sorted(item.name for item in self._root.iterdir() if (item / FILE).is_file())

    def _served(self, pointer: Pointer, mode: str = "", share: float = 0.0) -> Served:
        folder = pointer.folder(self._root)
        return Served(pointer.task, pointer.version, pointer.digest, folder, mode, share)

    def _complain(self, name: str, message: str) -> None:
        if self._complained.get(name) != message:
            self._complained[name] = message
            _LOG.warning("pointer of %s ignored: %s", name, message)


class BundleSource:
    """One bundle's folder, which never changes: ``/mnt/models`` in a pod, or one under test.

    ``mode`` and ``share`` make a challenger of it.
    """

    def __init__(self, folder: Path, version: str = UNREGISTERED, mode: str = "", share: float = 0.0) -> None:
        bundle = Bundle.open(folder, verify=False)
        if mode or share:
            check_mode(mode, share)
        self._served = Served(bundle.card.task, version, bundle.digest, bundle.root, mode, share)

    def scan(self) -> dict[str, Served]:
        """Always the same bundle."""
        return {self._served.name: self._served}


def champions(found: Mapping[str, Served]) -> dict[str, Served]:
    """What a source named, without the challengers: by task."""
    return {served.task: served for served in found.values() if not served.mode}


def open_source(
    root: Path | None,
    bundle: Path | None,
    version: str | None = None,
    mode: str = "",
    share: float = 0.0,
) -> Source:
    """The source that a command names: exactly one of a serving root and a bundle.

    ``version``, ``mode`` and ``share`` are what one bundle doesn't say of itself.

    Raises:
        UsageError: both or none are named, or there is no such mode or share.
        BundleError: there is no bundle at that place.
    """
    if (root is None) == (bundle is None):
        raise UsageError("Name what to serve: either a serving root or one bundle.")
    if bundle is not None:
        return BundleSource(bundle, version or UNREGISTERED, mode, share)
    assert root is not None
    return RootSource(root)
