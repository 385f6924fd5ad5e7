"""Which bundles this process serves: every task that a serving root points at, or one bundle's folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data.errors import IntegrityError, RetidermError, UsageError
from serving.core.bundle import Bundle
from serving.core.pointer import FILE, Pointer, read_pointer

_LOG = logging.getLogger("retiderm.serving")

UNREGISTERED = "unregistered"


@dataclass(frozen=True, slots=True)
class Served:
    """A bundle to serve: the model's name, its registry version, its digest, where it lies."""

    task: str
    version: str
    digest: str
    folder: Path

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
        """What to serve now, by task; what can't be read keeps what it was before."""


class RootSource:
    """A serving root, whose pointers promotions write."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: dict[str, Served] = {}
        self._complained: dict[str, str] = {}

    def scan(self) -> dict[str, Served]:
        """Read every pointer. One that is damaged, half written or gone changes nothing."""
        for task in self._tasks():
            try:
                pointer = read_pointer(self._root, task)
            except RetidermError as error:
                self._complain(task, str(error))
                continue
            if pointer is not None:
                self._complained.pop(task, None)
                self._last[task] = self._served(pointer)
        return dict(self._last)

    def _tasks(self) -> list[str]:
        if not self._root.is_dir():
            return []
        return sorted(item.name for item in self._root.iterdir() if (item / FILE).is_file())

    def _served(self, pointer: Pointer) -> Served:
        return Served(pointer.task, pointer.version, pointer.digest, pointer.folder(self._root))

    def _complain(self, task: str, message: str) -> None:
        if self._complained.get(task) != message:
            self._complained[task] = message
            _LOG.warning("pointer of %s ignored: %s", task, message)


class BundleSource:
    """One bundle's folder, which never changes: ``/mnt/models`` in a pod, or one under test."""

    def __init__(self, folder: Path, version: str = UNREGISTERED) -> None:
        bundle = Bundle.open(folder, verify=False)
        self._served = Served(bundle.card.task, version, bundle.digest, bundle.root)

    def scan(self) -> dict[str, Served]:
        """Always the same bundle."""
        return {self._served.task: self._served}


def open_source(root: Path | None, bundle: Path | None, version: str | None = None) -> Source:
    """The source that a command names: exactly one of a serving root and a bundle.

    Raises:
        UsageError: both or none are named.
        BundleError: there is no bundle at that place.
    """
    if (root is None) == (bundle is None):
        raise UsageError("Name what to serve: either a serving root or one bundle.")
    if bundle is not None:
        return BundleSource(bundle, version or UNREGISTERED)
    assert root is not None
    return RootSource(root)
