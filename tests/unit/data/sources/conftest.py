"""A small dataset, which labels from review are added to."""

from __future__ import annotations

import pytest

from data.dataset import Dataset
from tests.trainings import tiny_dataset


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("base"), 40)
