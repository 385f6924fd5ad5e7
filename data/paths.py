"""Where this project keeps what it makes: one folder, ``RETIDERM_HOME``, ``./var`` when not set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The folders under ``RETIDERM_HOME``."""

    root: Path

    @property
    def store(self) -> Path:
        """Images by content: ``<sha256[:2]>/<sha256>.<ext>``."""
        return self.root / "store"

    @property
    def datasets(self) -> Path:
        """Canonical datasets by name or digest."""
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        """Work in progress and artifacts of local pipeline runs."""
        return self.root / "runs"

    @property
    def mlflow(self) -> Path:
        """The local tracking store."""
        return self.root / "mlflow"

    @property
    def registry(self) -> Path:
        """The ledger of promotions."""
        return self.root / "registry"

    @property
    def serving(self) -> Path:
        """What serves: one folder a model, with the pointer that predictors watch."""
        return self.root / "serving"


def home() -> Home:
    """The current home, absolute. Read at each call, so that tests and steps can set the variable."""
    return Home(Path(os.environ.get("RETIDERM_HOME", "var")).expanduser().resolve())
