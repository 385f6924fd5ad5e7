"""When it is time to train again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import UsageError
from training.loop.due import Trigger, judge, read_drift


def report(images: int = 400, **outcomes: int) -> dict[str, Any]:
    return {
        "base": {"images": images, "digest": "sha256:base"},
        "counts": {"outcomes": outcomes, "erased": {"train": 0, "test": 0}},
        "test_changes": False,
    }


def drift(path: Path, **changes: Any) -> str:
    told = {
        "task": "eyes",
        "bundle_digest": "sha256:1",
        "alarm": True,
        "severity": "warning",
        "reason": "Colours moved.",
        **changes,
    }
    path.write_text(json.dumps(told))
    return str(path)


def test_by_hand_it_is_time_unless_a_version_has_learned_all_of_it() -> None:
    assert judge("eyes", Trigger(), report()).due
    known = {"sha256:base", "sha256:older"}
    said = judge("eyes", Trigger(), report(same=9, differs=2, frozen=1), learned=known)
    assert (said.due, said.gathered) == (False, 0)
    assert said.sentence.startswith("nothing new")
    assert judge("eyes", Trigger(), report(), learned={"sha256:older"}).due
    assert judge("eyes", Trigger(anyway=True), report(), learned=known).due
    # What readers disagree on is said by the step that reads the labels.
    for outcome in ("added", "corrected", "conflict"):
        assert judge("eyes", Trigger(), report(**{outcome: 1}), learned=known).due
    erased = report()
    erased["counts"]["erased"]["train"] = 1
    assert judge("eyes", Trigger(), erased, learned=known).due


@pytest.mark.parametrize(
    ("images", "trigger", "needed"),
    [(400, None, 50), (4000, None, 200), (4001, None, 201), (4000, 7, 7)],
)
def test_enough_labels(images: int, trigger: int | None, needed: int) -> None:
    asked = Trigger(always=False, labels=trigger)
    one_less = judge("eyes", asked, report(images, added=needed - 1, differs=100, held_back=9))
    assert (one_less.due, one_less.needed, one_less.gathered) == (False, needed, needed - 1)
    assert one_less.sentence == f"waits for labels ({needed - 1} of {needed} labels)"
    assert judge("eyes", asked, report(images, added=needed - 2, corrected=1, completed=1)).due


def test_while_drift_alarms_any_label_will_do(tmp_path: Path) -> None:
    asked = Trigger(always=False, drift=drift(tmp_path / "drift.json"))
    assert judge("eyes", asked, report(added=1), serves="sha256:1").due
    none = judge("eyes", asked, report(), serves="sha256:1")
    assert (none.due, none.sentence) == (
        False,
        "drift, but no new label to learn it from: Colours moved.",
    )
    other = judge("eyes", asked, report(added=1), serves="sha256:2")
    assert not other.due  # what drifted is served no longer


def test_no_alarm_and_no_report_yet_change_nothing(tmp_path: Path) -> None:
    calm = Trigger(always=False, drift=drift(tmp_path / "drift.json", alarm=False, severity="ok"))
    assert not judge("eyes", calm, report(added=1)).due
    assert not judge("eyes", Trigger(always=False, drift=str(tmp_path / "later.json")), report(added=1)).due


def test_another_file_is_no_drift_report(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UsageError, match="no drift report"):
        read_drift(tmp_path / "x.json", "eyes")
    with pytest.raises(UsageError, match="of skin, not of eyes"):
        read_drift(Path(drift(tmp_path / "y.json", task="skin")), "eyes")
