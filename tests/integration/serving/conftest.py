"""One pair of servers for all tests of this folder that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data.preprocess import Preprocessing
from tests.bundles import tiny_bundle
from tests.integration.serving.harness import Servers, promote


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two tasks, of different size and number of heads."""
    base = tmp_path_factory.mktemp("bundles")
    heads = {"type": ("dry", "oily"), "hair": ("straight", "wavy", "curly")}
    tiny_bundle(base / "dr_grading", task="dr_grading", quality="photo")
    middle = Preprocessing(size=(48, 56), fit="center")
    tiny_bundle(
        base / "profile",
        task="profile",
        quality="photo",
        heads=heads,
        size=middle.size,
        preprocessing=middle.to_dict(),
        preprocessing_digest=middle.digest,
    )
    return {path.name: path for path in base.iterdir()}


@pytest.fixture(scope="session")
def servers(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both tasks promoted and served, with small limits so that tests of limits are quick."""
    from serving.core.bundle import Bundle

    root = tmp_path_factory.mktemp("root")
    for path in bundles.values():
        promote(root, Bundle.open(path), "7")
    limits = ("--max-body-mb", "8", "--max-image-mb", "1", "--max-batch", "16")
    with Servers(root, root / "servers", transformer_options=limits).running() as running:
        yield running
