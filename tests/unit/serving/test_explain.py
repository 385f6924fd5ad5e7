"""The overlay's colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from serving.explain import encode_png, overlay, overlay_png

GREY = np.full((40, 60, 3), 120, np.uint8)


def spot() -> np.ndarray:
    cam = np.zeros((4, 6), np.float32)
    cam[1, 4] = 3.0
    return cam


def test_the_hottest_place_changes_most_and_the_rest_not_at_all() -> None:
    changed = np.abs(overlay(GREY, spot()).astype(int) - GREY).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert abs(row - 15) <= 5
    assert abs(column - 45) <= 5
    assert changed[:, :20].max() == 0


def test_scale_does_not_matter() -> None:
    assert np.array_equal(overlay(GREY, spot()), overlay(GREY, spot() * np.float32(1e-4)))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_map_of_nothing_leaves_the_picture(value: float) -> None:
    assert np.array_equal(overlay(GREY, np.full((3, 3), value, np.float32)), GREY)


def test_the_png_holds_the_same_pixels_in_the_same_order() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    back = cv2.imdecode(np.frombuffer(encode_png(rgb), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(back, rgb)
    assert overlay_png(GREY, spot()).startswith(b"\x89PNG")


def test_the_picture_itself_is_not_written_to() -> None:
    before = GREY.copy()
    overlay(GREY, spot())
    assert np.array_equal(GREY, before)
