"""S4's shapes: which pixels they leave, their defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.errors import RequestError
from serving.core.patchcore.shape import ShapeMask


def mask(value: Any, width: int = 20, height: int = 10) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return ShapeMask.from_json(value, width, height).mask()


@pytest.mark.parametrize("value", [None, {"kind": "rect"}, {"kind": "rect", "x": 0, "y": None}])
def test_nothing_said_is_the_whole_roi(value: Any) -> None:
    assert mask(value).shape == (10, 20)
    assert mask(value).all()


def test_a_rectangle_is_its_pixels() -> None:
    found = mask({"kind": "rect", "x": 3, "y": 2, "w": 5, "h": 4})
    wanted = np.zeros((10, 20), bool)
    wanted[2:6, 3:8] = True
    assert (found == wanted).all()


def test_a_rectangle_s_missing_size_goes_to_the_edge() -> None:
    assert (mask({"kind": "rect", "x": 15}) == (np.arange(20) >= 15)[None].repeat(10, 0)).all()


def test_a_rectangle_over_the_edge_is_cut() -> None:
    assert mask({"kind": "rect", "x": -5, "y": -5, "w": 8, "h": 7}).sum() == 3 * 2


def test_a_circle_s_defaults_are_the_largest_in_the_middle() -> None:
    found = mask({"kind": "circle"})
    assert found[5, 10]
    assert not found[0, 0]
    assert (found == mask({"kind": "circle", "cx": 10, "cy": 5, "r": 5})).all()
    assert found.sum() == pytest.approx(np.pi * 25, rel=0.05)
    assert (found == found[::-1, ::-1]).all()


def test_an_annulus_has_a_hole() -> None:
    ring = mask({"kind": "annulus", "r": 5, "r_inner": 2})
    disc, hole = mask({"kind": "circle", "r": 5}), mask({"kind": "circle", "r": 1.99})
    assert (ring == (disc & ~hole)).all()
    assert (mask({"kind": "annulus"}) == mask({"kind": "circle"})).all()


@pytest.mark.parametrize("kind", ["rect", "circle", "annulus"])
def test_one_pixel(kind: str) -> None:
    assert mask({"kind": kind}, 1, 1).tolist() == [[True]]


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "rect", "x": 20, "y": 0, "w": 5, "h": 5},
        {"kind": "rect", "x": 30},
        {"kind": "rect", "w": 0, "h": 5},
        {"kind": "circle", "cx": -50, "cy": 5, "r": 4},
        {"kind": "circle", "r": 0},
        {"kind": "annulus", "r": 3, "r_inner": 4},
        "rect",
        [],
        {},
        {"kind": "polygon"},
        {"kind": ["rect"]},
        {"kind": "rect", "w": -3},
        {"kind": "circle", "r": -1},
        {"kind": "rect", "x": "3"},
        {"kind": "rect", "x": True},
        {"kind": "rect", "x": float("nan")},
        {"kind": "circle", "r": float("inf")},
        {"kind": "circle", "r": 1e300},
        {"kind": "circle", "r": 10**400},
        {"kind": "circle", "radius": 3},
    ],
)
def test_what_is_no_shape_or_leaves_nothing_is_refused(value: Any) -> None:
    with pytest.raises(RequestError):
        mask(value)
