"""S4's inference from distances on, and the properties that no step may lose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from data.errors import RequestError, ServingError
from serving.core.patchcore.calibrate import calibrate
from serving.core.patchcore.score import anomaly_map, evaluate_roi, heatmap, image_score, regions

Map = NDArray[np.float32]
MAPS = arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 4, width=32)
)


@st.composite
def masked(draw: st.DrawFn) -> tuple[Map, NDArray[np.bool_]]:
    map_ = draw(MAPS)
    mask = draw(arrays(np.bool_, map_.shape))
    mask[draw(st.integers(0, map_.shape[0] - 1)), draw(st.integers(0, map_.shape[1] - 1))] = True
    return map_, mask


@st.composite
def hotspots(draw: st.DrawFn, shape: tuple[int, int]) -> Map:
    """A rise of some pixels, none elsewhere."""
    return draw(arrays(np.float32, shape, elements=st.floats(0, 4, width=32))) * draw(arrays(np.bool_, shape))


@settings(deadline=None)
@given(masked(), st.data(), st.floats(0, 100))
def test_a_hotspot_inside_never_lowers_the_score(
    case: tuple[Map, NDArray[np.bool_]], data: st.DataObject, percentile: float
) -> None:
    map_, mask = case
    hot = map_ + data.draw(hotspots(map_.shape)) * mask
    assert image_score(hot, mask, percentile) >= image_score(map_, mask, percentile)


@settings(deadline=None)
@given(masked(), st.data(), st.floats(0, 100))
def test_a_hotspot_outside_changes_nothing(
    case: tuple[Map, NDArray[np.bool_]], data: st.DataObject, percentile: float
) -> None:
    map_, mask = case
    hot = map_ + data.draw(hotspots(map_.shape)) * ~mask
    assert image_score(hot, mask, percentile) == image_score(map_, mask, percentile)
    assert (heatmap(hot, mask) == heatmap(map_, mask)).all()
    assert regions(hot, mask, 1.0, 1.0, 0.0) == regions(map_, mask, 1.0, 1.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (7, 7), elements=st.floats(0, 4, width=32)),
    arrays(np.float32, (7, 7), elements=st.floats(0, 4, width=32)),
)
def test_more_distance_anywhere_never_lowers_the_score_of_a_roi(distances: Map, more: Map) -> None:
    """Upsampling and blur are averages: what they make of a rise is a rise (to float32's rounding)."""
    before = evaluate_roi(distances, (40, 50), mm_per_px=1.0).score
    assert evaluate_roi(distances + more, (40, 50), mm_per_px=1.0).score >= before - 1e-5


@settings(deadline=None)
@given(masked(), st.floats(0, 100))
def test_the_score_is_numpy_s_percentile(case: tuple[Map, NDArray[np.bool_]], percentile: float) -> None:
    map_, mask = case
    wanted = np.percentile(map_[mask].astype(np.float64), percentile)
    assert image_score(map_, mask, percentile) == pytest.approx(wanted, abs=1e-12)


@settings(deadline=None)
@given(masked(), st.floats(0.01, 3.0), st.floats(0, 8))
def test_islands_are_removed_as_mm_per_px_says(
    case: tuple[Map, NDArray[np.bool_]], mm_per_px: float, area_mm2_thr: float
) -> None:
    map_, mask = case
    every = regions(map_, mask, 2.0, mm_per_px, 0.0)
    kept = regions(map_, mask, 2.0, mm_per_px, area_mm2_thr)
    assert kept == tuple(one for one in every if one.area_mm2 >= area_mm2_thr)
    assert all(one.area_mm2 == one.area_px * mm_per_px * mm_per_px for one in every)
    assert sum(one.area_px for one in every) == ((map_ >= 2.0) & mask).sum()
    assert [one.area_px for one in every] == sorted((one.area_px for one in every), reverse=True)


@settings(deadline=None)
@given(masked())
def test_a_region_s_box_and_contour_hold_it(case: tuple[Map, NDArray[np.bool_]]) -> None:
    map_, mask = case
    for one in regions(map_, mask, 2.0, 1.0, 0.0):
        x, y, width, height = one.bbox
        points = np.array(one.contour)
        assert (points.min(axis=0) == (x, y)).all()
        assert (points.max(axis=0) == (x + width - 1, y + height - 1)).all()
        assert all(map_[py, px] >= 2.0 and mask[py, px] for px, py in one.contour)


def test_two_islands_largest_first() -> None:
    map_ = np.zeros((40, 60), np.float32)
    map_[5:15, 5:30] = 1.0
    map_[20:22, 40:43] = 1.0
    mask = np.ones(map_.shape, bool)
    large, small = regions(map_, mask, 1.0, 0.2, 0.0)
    assert large.bbox == (5, 5, 25, 10)
    assert (large.area_px, large.area_mm2) == (250.0, pytest.approx(10.0))
    assert small.bbox == (40, 20, 3, 2)
    assert set(large.contour) == {(5, 5), (29, 5), (5, 14), (29, 14)}
    assert regions(map_, mask, 1.0, 0.2, 1.0) == (large,)
    assert len(regions(map_, mask, 1.0, 1.0, 1.0)) == 2


def test_the_threshold_is_part_of_the_region() -> None:
    map_ = np.full((3, 3), 0.5, np.float32)
    mask = np.ones((3, 3), bool)
    assert len(regions(map_, mask, 0.5, 1.0)) == 1
    assert regions(map_, mask, float(np.nextafter(np.float32(0.5), np.float32(1))), 1.0) == ()


def test_the_picture_is_the_range_inside_the_mask_and_zero_outside() -> None:
    map_ = np.arange(100, dtype=np.float32).reshape(10, 10)
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    picture = heatmap(map_, mask)
    assert picture.dtype == np.uint8
    assert not picture[5:].any()
    assert (picture[0, 0], picture[4, 9]) == (0, 255)
    assert (np.diff(picture[mask].astype(int)) >= 0).all()


def test_a_flat_map_is_a_black_picture() -> None:
    assert not heatmap(np.ones((4, 4), np.float32), np.ones((4, 4), bool)).any()


def test_the_map_s_corners_lie_on_the_roi_s() -> None:
    """Geometry is never changed: a hot patch is hot where it was, on any ROI shape."""
    for row, column in [(0, 0), (0, 7), (7, 0), (7, 7), (3, 5)]:
        distances = np.zeros((8, 8), np.float32)
        distances[row, column] = 1.0
        map_ = anomaly_map(distances, (80, 240))
        y, x = np.unravel_index(map_.argmax(), map_.shape)
        assert (y * 8 // 80, x * 8 // 240) == (row, column)


def test_a_constant_stays_constant() -> None:
    assert np.allclose(anomaly_map(np.full((5, 7), 0.3, np.float32), (33, 44), 2.0), 0.3, atol=1e-6)


def test_no_blur_is_the_upsampled_map() -> None:
    distances = np.random.default_rng(0).random((6, 6), dtype=np.float32)
    assert (anomaly_map(distances, (6, 6), 0.0) == distances).all()


@pytest.mark.parametrize("grid", [(1, 1), (32, 32), (1, 9)])
def test_a_roi_of_one_pixel(grid: tuple[int, int]) -> None:
    scored = evaluate_roi(
        np.full(grid, 0.7, np.float32), (1, 1), mm_per_px=2.0, calibration=calibrate([0.5], mm_per_px=1)
    )
    assert scored.map.shape == scored.heatmap.shape == (1, 1)
    assert scored.score == pytest.approx(0.7)
    assert scored.regions[0].bbox == (0, 0, 1, 1)
    assert scored.regions[0].area_mm2 == 4.0


def test_without_a_calibration_there_are_no_regions() -> None:
    assert evaluate_roi(np.full((4, 4), 3.0, np.float32), (20, 20), mm_per_px=1.0).regions == ()


def test_the_calibration_s_percentile_and_area_count() -> None:
    distances = np.zeros((8, 8), np.float32)
    distances[2, 2] = 4.0
    made = calibrate([0.01], mm_per_px=1.0, area_mm2_thr=50.0, score_percentile=50)
    small = evaluate_roi(distances, (8, 8), mm_per_px=1.0, calibration=made)
    assert small.regions == ()
    assert small.score < 0.5
    # The request's millimetres, not the calibration's.
    assert len(evaluate_roi(distances, (8, 8), mm_per_px=10.0, calibration=made).regions) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_distance_that_is_no_number_is_no_answer(value: float) -> None:
    distances = np.zeros((4, 4), np.float32)
    distances[1, 1] = value
    with pytest.raises(ServingError, match="not a finite number"):
        evaluate_roi(distances, (20, 20), mm_per_px=1.0)


@pytest.mark.parametrize("mm_per_px", [0, -1.0, float("nan"), float("inf")])
def test_pixels_without_a_size_are_refused(mm_per_px: float) -> None:
    with pytest.raises(RequestError, match="mm_per_px"):
        evaluate_roi(np.zeros((4, 4), np.float32), (20, 20), mm_per_px=mm_per_px)


@pytest.mark.parametrize(
    "mask",
    [np.zeros((4, 4), bool), np.ones((4, 5), bool), np.ones((4, 4), np.uint8)],
    ids=["empty", "size", "type"],
)
def test_a_mask_that_does_not_fit_is_refused(mask: Any) -> None:
    map_ = np.zeros((4, 4), np.float32)
    for step in (
        lambda: image_score(map_, mask),
        lambda: heatmap(map_, mask),
        lambda: regions(map_, mask, 1, 1),
    ):
        with pytest.raises(RequestError):
            step()
