"""From a file to a model's input, whatever the file's shape."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.errors import ImageDamaged
from serving import preparing
from serving.preparing import load_recipe
from serving.source import Served
from tests.bundles import tiny_bundle


def test_what_opencv_cannot_work_on_is_a_damaged_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    recipe = load_recipe(Served("dr_grading", "1", bundle.digest, bundle.root))

    def fails(*_: object) -> None:
        cv2.resize(np.zeros((0, 0, 3), np.uint8), (8, 8))

    monkeypatch.setattr(preparing, "prepare", fails)
    answer = recipe.prepare(b"any")
    assert isinstance(answer, ImageDamaged)
    assert "OpenCV" not in str(answer)
