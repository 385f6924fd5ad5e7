"""What the registry's tests look at, and what they break: what serves, a second place, a full disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import training.registry.ledger
from data.errors import RegistryError
from data.paths import Home
from serving.core.bundle import Bundle
from serving.core.pointer import read_pointer
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.version import Version

TASK = "dr_grading"


def serving(home: Home, task: str = TASK) -> str | None:
    """The version that a predictor would load now; its bundle must be whole."""
    pointer = read_pointer(home.serving, task)
    if pointer is None:
        return None
    assert Bundle.open(pointer.folder(home.serving)).digest == pointer.digest
    return pointer.version


def aliases(registry: Registry, task: str = TASK) -> dict[str, str]:
    return {alias: v.version for v in registry.versions(task) for alias in v.aliases}


class Elsewhere:
    """A second target, in memory, that can be told to fail."""

    name = "elsewhere"

    def __init__(self) -> None:
        self.state: dict[str, dict[str, Any] | None] = {}
        self.fails: str = ""

    def spec(self) -> dict[str, Any]:
        return {"kind": "elsewhere"}

    def current(self, task: str) -> dict[str, Any] | None:
        return self.state.get(task)

    def serves(self, version: Version) -> bool:
        return self.state.get(version.task) == {"digest": version.digest}

    def prepare(self, version: Version) -> None:
        if self.fails == "prepare":
            raise RegistryError("elsewhere is full")

    def apply(self, version: Version) -> None:
        if self.fails in ("apply", "both"):
            raise RegistryError("elsewhere is away")
        if self.fails == "bug":
            raise ZeroDivisionError("a bug")
        self.state[version.task] = {"digest": version.digest}

    def restore(self, task: str, state: Mapping[str, Any] | None) -> None:
        if self.fails == "both":
            raise RegistryError("elsewhere is still away")
        self.state[task] = dict(state) if state else None

    def tidy(self, task: str, keep: Sequence[Version]) -> None:
        if self.fails == "tidy":
            raise OSError("no")


def full_after(patch: pytest.MonkeyPatch, event: str) -> None:
    """The disk is full when the head follows a line of that event."""
    real = training.registry.ledger.write_json

    def full(path: Path, document: Any) -> None:
        if Ledger().entries()[-1].event == event:
            raise OSError(28, "No space left on device")
        real(path, document)

    patch.setattr(training.registry.ledger, "write_json", full)
