from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UsageError
from data.synthetic import SUBJECTS, draw, pixels, plan
from data.synthetic.drawing import classes
from data.synthetic.folder import write_folder
from data.synthetic.retinopathy import Findings, findings


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_seed_always_draws_the_same_and_another_something_else(subject: str) -> None:
    first, again, other = (plan(subject, 3, seed=seed, size=96) for seed in (1, 1, 2))
    assert first == again
    assert [draw(each) for each in first] == [draw(each) for each in reversed(again)][::-1]
    assert draw(first[0]) != draw(other[0])
    assert draw(first[0]) != draw(first[1])


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("size", [32, 96, 300])
def test_images_are_as_large_as_asked(subject: str, size: int) -> None:
    for each in plan(subject, 8, size=size):
        drawn = pixels(each)
        assert drawn.shape == (size, size, 3)
        assert drawn.dtype == np.uint8
        assert drawn.std() > 10


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_plan_has_all_classes_and_groups_of_one_class(subject: str) -> None:
    made = plan(subject, 140)
    assert len(made) == 140
    assert len({each.name for each in made}) == len({each.key for each in made}) == 140
    counts = [sum(each.label == label for each in made) for label in classes(subject)]
    assert max(counts) - min(counts) <= 12
    groups: dict[str, set[str]] = {}
    for each in made:
        groups.setdefault(each.group, set()).add(each.label)
    assert all(len(labels) == 1 for labels in groups.values())
    assert 100 < len(groups) < 140
    assert len({each.camera for each in made}) == 4


def test_formats() -> None:
    assert draw(plan("fundus", 1, size=64, format="png")[0]).startswith(b"\x89PNG")
    assert draw(plan("fundus", 1, size=64)[0]).startswith(b"\xff\xd8")
    with pytest.raises(UsageError, match="no 'skull' to draw"):
        plan("skull", 1)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 4), st.integers(0, 2**32))
def test_findings_make_the_grade_that_was_asked(grade: int, seed: int) -> None:
    assert findings(np.random.default_rng(seed), grade).grade == grade


@pytest.mark.parametrize(
    ("shown", "grade"),
    [
        (Findings(), 0),
        (Findings(microaneurysms=9), 1),
        (Findings(9, (20, 20, 20, 20)), 2),
        (Findings(9, (90, 90, 90, 20)), 2),
        (Findings(9, (21, 21, 21, 21)), 3),
        (Findings(beading=frozenset({1})), 0),
        (Findings(beading=frozenset({1, 2})), 3),
        (Findings(irma=frozenset({0})), 3),
        (Findings(exudates=1), 2),
        (Findings(cotton_wool=1), 2),
        (Findings(new_vessels_disc=True), 4),
        (Findings(new_vessels_elsewhere=1, irma=frozenset({0})), 4),
        (Findings(preretinal=True), 4),
        (Findings(vitreous=True), 4),
    ],
)
def test_the_scale(shown: Findings, grade: int) -> None:
    assert shown.grade == grade


def test_a_fundus_is_a_bright_disc_on_black() -> None:
    for each in plan("fundus", 10, size=128):
        drawn = pixels(each)
        assert drawn[:6, :6].mean() < 12
        centre = drawn[44:84, 44:84].reshape(-1, 3).mean(axis=0)
        assert centre[0] > centre[1] > centre[2]


def test_more_severe_eyes_have_more_blood() -> None:
    """Local dark spots, by a black-hat: more of them in severe eyes than in healthy ones."""
    spots: dict[str, list[float]] = {}
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    for each in plan("fundus", 100, size=160):
        green = pixels(each)[..., 1]
        spots.setdefault(each.label, []).append(
            float((cv2.morphologyEx(green, cv2.MORPH_BLACKHAT, kernel) > 30).mean())
        )
    medians = {label: float(np.median(values)) for label, values in spots.items()}
    assert medians["0"] < medians["2"] < medians["3"]


def test_lesions_have_their_colours() -> None:
    middles: dict[str, list[np.ndarray]] = {}
    for each in plan("lesion", 105, size=96):
        middles.setdefault(each.label, []).append(pixels(each)[30:66, 30:66].reshape(-1, 3).mean(axis=0))
    mean = {label: np.mean(values, axis=0) for label, values in middles.items()}
    lightness = {label: float(value.sum()) for label, value in mean.items()}
    redness = {label: float(value[0] - value[1]) for label, value in mean.items()}
    assert lightness["mel"] < lightness["nv"] < lightness["bcc"]
    assert max(redness, key=lambda label: redness[label]) == "vasc"


def test_it_is_fast() -> None:
    drawings = plan("fundus", 24, size=256) + plan("lesion", 24, size=256)
    pixels(drawings[0])
    started = time.process_time()
    for each in drawings:
        pixels(each)
    # 50 a second is what it must do on a quiet core; half of that leaves room for a busy one.
    assert (time.process_time() - started) / len(drawings) < 1 / 25


def test_a_written_folder_says_that_it_is_synthetic(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from data.sources import open_source
    from tests.unit.data.layouts import GRADE

    write_folder("fundus", 6, tmp_path, size=64)
    source = open_source(f"labels:{tmp_path}")
    assert source.synthetic
    assert source.licence.name.startswith("synthetic")
    assert len(list(source.samples((GRADE,)))) == 6
    assert open_source(f"labels:{tmp_path}?licence=mine").licence.name == "mine"
