from __future__ import annotations

from pathlib import Path

import pytest

from data.dataset import Dataset
from tests.trainings import tiny_dataset


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 images of 40 px with two heads, one of them half labelled."""
    return tiny_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
