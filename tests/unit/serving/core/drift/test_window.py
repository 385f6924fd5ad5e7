from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.errors import UsageError
from serving.core.drift import Settings, Window
from tests.drift_windows import window


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("sharpness", np.zeros(3), "sharpness has the shape"),
        ("colour", np.zeros((4, 5)), "colour has the shape"),
        ("embedding", np.zeros(4), "embedding has the shape"),
        ("probabilities", {"grade": np.zeros((3, 2))}, "grade.probabilities has the shape"),
        ("truth", {"grade": np.zeros(4)}, "not whole numbers"),
        ("exposure", np.array(["a"] * 4), "not numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, value: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Window(images=4, **{name: value})


def test_the_first_images_are_a_window() -> None:
    whole = window(30, labelled=True)
    part = whole.first(10)
    assert part.images == 10
    assert part.embedding is not None
    assert whole.embedding is not None
    assert (part.embedding == whole.embedding[:10]).all()
    assert len(part.truth["grade"]) == len(part.probabilities["grade"]) == 10
    assert part.score is None
    assert whole.rows(np.array([5, 1])).sharpness.tolist() == whole.sharpness[[5, 1]].tolist()  # type: ignore[union-attr,index]


def test_looks_share_the_level() -> None:
    schedule = Settings(level=0.07).schedule
    assert [images for images, _ in schedule] == [50, 100, 200]
    assert [part for _, part in schedule] == pytest.approx([0.01, 0.02, 0.04])


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 0.0},
        {"size": 5},
        {"looks": (0.5,)},
        {"looks": (0.5, 0.5, 1.0)},
        {"looks": ()},
        {"draws": 10},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Drift settings"):
        Settings(**wrong)
