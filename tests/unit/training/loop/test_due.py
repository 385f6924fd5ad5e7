"""When it is time to train again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import UsageError
from training.loop.due import Trigger, judge, read_drift


def report(images: int = 400, **outcomes: int) -> dict[str, Any]:
    return {"base": {"images": images}, "counts": {"outcomes": outcomes}}


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


def test_by_hand_it_is_always_time() -> None:
    assert judge("eyes", Trigger(), report()).due


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
