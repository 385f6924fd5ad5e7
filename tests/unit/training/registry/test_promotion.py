"""training/registry/promotion.py, plan.py: what serves, and under which aliases, after each change."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import RegistryError, UsageError
from data.paths import Home
from tests.unit.training.registry.world import TASK, aliases, serving
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.promotion import promote, rollback
from training.registry.state import history
from training.registry.verify import verify


def test_promote_twice_and_roll_back(registry: Registry, make: Any, home: Home) -> None:
    first, second = make(accepted=True), None
    result = promote(registry, first, why="the first", who="alice")
    assert (result.before, result.changed, result.targets) == (None, True, ("local",))
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1"})
    second = make(accepted=True)
    assert aliases(registry) == {"champion": "1", "challenger": "2"}
    assert promote(registry, second, why="better", who="bob").before == "1"
    assert (serving(home), aliases(registry)) == ("2", {"champion": "2", "previous": "1"})
    back = rollback(registry, TASK, why="worse after all", who="carol")
    assert (back.action, back.version, back.before) == ("rollback", "1", "2")
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1", "previous": "2"})
    assert verify(registry) == []
    rows = history(Ledger().entries(), TASK)
    assert [(r.version, r.action, r.who, r.why) for r in rows] == [
        ("1", "promote", "alice", "the first"),
        ("2", "promote", "bob", "better"),
        ("1", "rollback", "carol", "worse after all"),
    ]
    assert [bool(r.until) for r in rows] == [True, True, False]
    assert rows[0].until == rows[1].since


def test_of_two_who_roll_back_to_one_version_the_second_changes_nothing(
    registry: Registry, make: Any, home: Home
) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    assert rollback(registry, TASK, to="1", who="anna").changed is True
    entries = len(Ledger().entries())
    again = rollback(registry, TASK, to="1", who="bob")
    assert (again.changed, again.version, serving(home)) == (False, "1", "1")
    assert len(Ledger().entries()) == entries


def test_a_comparison_of_another_version_is_refused(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    make(accepted=True)
    third = make(accepted=True)
    entries = len(Ledger().entries())
    with pytest.raises(RegistryError, match="of version 2, not of version 3"):
        promote(registry, third, comparison={"champion": "1", "challenger": "2", "images": 300})
    assert (serving(home), len(Ledger().entries())) == ("1", entries)
    seen = {"champion": "1", "challenger": "3", "images": 300}
    assert promote(registry, third, comparison=seen).changed
    (intent,) = (one for one in Ledger().entries() if one.event == "intent" and one.version == "3")
    assert intent.data["comparison"] == seen


def test_what_serves_already_changes_nothing(registry: Registry, make: Any) -> None:
    version = make(accepted=True)
    promote(registry, version)
    before = len(Ledger().entries())
    assert promote(registry, version).changed is False
    assert len(Ledger().entries()) == before


def test_what_serves_gets_its_alias_back(registry: Registry, make: Any, home: Home) -> None:
    one = make(accepted=True)
    promote(registry, one)
    registry.set_alias(TASK, "champion", make().version)
    assert promote(registry, one).changed
    assert (serving(home), aliases(registry)) == ("1", {"champion": "1"})


def test_a_champion_that_mlflow_lost_is_no_reason_to_begin_a_line(registry: Registry, make: Any) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    registry.client.delete_model_version(TASK, "2")
    with pytest.raises(RegistryError, match="version 2 is champion, but MLflow has it no longer"):
        make(accepted=True)
    assert rollback(registry, TASK).version == "1"
    assert aliases(registry) == {"champion": "1"}


def test_rollback_only_to_what_served(registry: Registry, make: Any) -> None:
    one = make(accepted=True)
    promote(registry, one)
    with pytest.raises(RegistryError, match="nothing to go back to"):
        rollback(registry, TASK)
    make()
    with pytest.raises(RegistryError, match="never served"):
        rollback(registry, TASK, to="2")
    with pytest.raises(UsageError):
        rollback(registry, "../etc")


def test_rollback_copies_again_what_was_tidied_away(registry: Registry, make: Any, home: Home) -> None:
    for _ in range(3):
        promote(registry, make(accepted=True))
    kept = sorted(p.name.split("-")[0] for p in (home.serving / TASK / "versions").iterdir())
    assert kept == ["2", "3"]
    rollback(registry, TASK, to="1")
    assert serving(home) == "1"
    assert verify(registry) == []


def test_a_damaged_bundle_is_never_served(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    bad = make(accepted=True)
    model = registry.bundle_path(bad) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RegistryError, match="not the file that was exported"):
        promote(registry, bad)
    assert serving(home) == "1"
    assert [(f.kind, f.task) for f in verify(registry)] == [("bundle", TASK)]


def test_tasks_do_not_disturb_each_other(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make("skin_lesion", accepted=True))
    assert (serving(home), serving(home, "skin_lesion")) == ("1", "1")
    assert verify(registry) == []
    assert registry.tasks() == ["dr_grading", "skin_lesion"]
