"""Drawn faces: what is labelled is what is drawn, and each head is labelled only where it can be seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset import Head
from data.errors import SourceError
from data.ingest import ingest
from data.sources import open_source
from data.synthetic import pixels, plan
from data.synthetic.folder import write_folder
from data.synthetic.looks import CONDITIONS, HAIR_TYPES, SKIN_TYPES, VIEWS, look_of
from data.tone import TONES, tone_name

ACNE = Head("acne", ("no_acne", "acne"))
CONDITION = Head("condition", ("normal", "acne", "rosacea", "eczema", "pigmentation"))
PROFILE = (
    Head("skin_type", SKIN_TYPES),
    Head("hair_type", HAIR_TYPES),
    Head("condition", ("healthy", "mild_acne", "severe_acne", "eczema", "psoriasis")),
)


def test_people_are_spread_over_tones_types_and_hair() -> None:
    people = [look_of(number, "healthy") for number in range(600)]
    for counts in (
        Counter(tone_name(each.ita) for each in people),
        Counter(each.skin_type for each in people),
        Counter(each.hair_type for each in people),
    ):
        assert min(counts.values()) > 0.6 * 600 / len(counts)
    assert len(TONES) == len({tone_name(each.ita) for each in people})


def test_both_photographs_of_a_person_show_the_same_one() -> None:
    groups: dict[str, list[object]] = {}
    for each in plan("face", 80):
        groups.setdefault(each.group, []).append(each.look)
    assert any(len(looks) == 2 for looks in groups.values())
    assert all(len(set(looks)) == 1 for looks in groups.values())


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_condition_is_drawn_in_every_view(condition: str, view: str) -> None:
    (drawing,) = plan("face", 1, labels=(condition,), views=(view,), size=96)
    assert (drawing.label, drawing.view) == (condition, view)
    drawn = pixels(drawing)
    assert drawn.shape == (96, 96, 3)
    assert drawn.std() > 3


def test_redder_conditions_are_redder() -> None:
    """Median a* of the middle, the same people with and without rosacea."""
    red: dict[str, list[float]] = {"healthy": [], "rosacea": []}
    for condition, found in red.items():
        for each in plan("face", 24, labels=(condition,), views=("close",), size=96):
            lab = cv2.cvtColor(pixels(each).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
            found.append(float(np.median(lab[45:70, 25:71, 1])))
    assert np.mean(red["rosacea"]) > np.mean(red["healthy"]) + 4


def test_acne_comes_half_of_the_time_and_other_conditions_count_as_none() -> None:
    samples = list(open_source("synthetic?n=240", heads=(ACNE,)).samples((ACNE,)))
    counts = Counter(sample.labels["acne"] for sample in samples)
    assert counts.keys() == {"no_acne", "acne"}
    assert abs(counts["acne"] - 120) < 25


def test_conditions_come_equally_often() -> None:
    samples = list(open_source("synthetic-face?n=200", heads=(CONDITION,)).samples((CONDITION,)))
    counts = Counter(sample.labels["condition"] for sample in samples)
    assert set(counts) == set(CONDITION.classes)
    assert max(counts.values()) - min(counts.values()) < 20


def test_a_patch_is_labelled_for_its_condition_alone() -> None:
    source = open_source("synthetic?n=120", task="skin_profile", heads=PROFILE)
    assert source.kind == "synthetic-face"
    views = Counter()
    for sample in source.samples(PROFILE):
        views[sample.meta["view"]] += 1
        assert sample.labels["condition"] in PROFILE[2].classes
        seen = sample.meta["view"] == "portrait"
        assert (sample.labels["hair_type"] is not None) == seen
        assert (sample.labels["skin_type"] is not None) == seen
    assert views.keys() == {"portrait", "patch"}
    assert views["portrait"] > views["patch"]


def test_the_tasks_names_choose_what_is_drawn() -> None:
    for task, heads in (("acne", (ACNE,)), ("skin_condition", (CONDITION,)), ("skin_profile", PROFILE)):
        assert open_source("synthetic:?n=4", task=task, heads=heads).kind == "synthetic-face"


def test_heads_that_no_face_shows_are_refused() -> None:
    heads = (Head("mood", ("happy", "sad")),)
    with pytest.raises(SourceError, match="no classes that fit the head mood"):
        list(open_source("synthetic-face?n=4").samples(heads))


def test_skin_tones_are_in_the_manifest(tmp_path: Path) -> None:
    made = ingest("synthetic-face?n=24&size=96", (ACNE,), tmp_path / "d", task="acne", store=tmp_path / "s")
    frame = made.frame()
    assert set(frame["meta.ita_class"].dropna()) <= {name for name, _ in TONES}
    assert frame["meta.ita"].notna().sum() >= 22
    assert made.info["synthetic"] is True
    # What was measured stays when the dataset is given to another.
    again = ingest(f"dataset:{made.root}", (ACNE,), tmp_path / "e", task="acne", store=tmp_path / "s")
    assert again.digest == made.digest
    kept = again.frame().set_index("id")["meta.ita_class"].to_dict()
    assert kept == frame.set_index("id")["meta.ita_class"].to_dict()


def test_other_sources_measure_tone_only_where_asked(tmp_path: Path) -> None:
    write_folder("face", 6, tmp_path / "f", size=64)
    for option, there in (("", False), ("&skin=centre", True)):
        made = ingest(
            f"labels:{tmp_path / 'f'}?label=label{option}",
            (Head("condition", CONDITIONS),),
            tmp_path / f"d{there}",
            task="t",
            store=tmp_path / "s",
        )
        assert ("meta.ita_class" in made.frame().columns) == there


def test_a_written_folder_has_a_column_a_trait(tmp_path: Path) -> None:
    table = write_folder("face", 12, tmp_path, size=64)
    header, *rows = table.read_text().splitlines()
    assert header == "image_name,label,group,camera,skin_type,hair_type"
    heads = (Head("label", CONDITIONS), PROFILE[0], PROFILE[1])
    samples = list(open_source(f"labels:{tmp_path}").samples(heads))
    assert len(samples) == len(rows) == 12
    assert any(sample.labels["hair_type"] is None for sample in samples)
