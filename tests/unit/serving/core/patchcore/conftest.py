"""An empty store of ROIs."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.core.patchcore.store import RoiStore


@pytest.fixture
def store(tmp_path: Path) -> RoiStore:
    return RoiStore(tmp_path / "models")
