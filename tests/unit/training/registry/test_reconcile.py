"""training/registry/reconcile.py, adoption.py: put back by the ledger, or begun with a new one."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from data.errors import RegistryError
from data.paths import Home
from serving.core.pointer import pointer_file
from tests.unit.training.registry.world import TASK, aliases, serving
from training.registry.adoption import adopt
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.promotion import promote, rollback
from training.registry.reconcile import reconcile
from training.registry.verify import verify


def test_changes_by_hand_are_seen_and_put_back(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    registry.set_alias(TASK, "champion", "1")
    pointer_file(home.serving, TASK).write_text("{}")
    shutil.rmtree(home.serving / TASK / "versions")
    assert [f.kind for f in verify(registry)] == ["drift", "drift"]
    seen = reconcile(registry, dry_run=True)
    assert [(r.what, r.done) for r in seen] == [("alias", False), ("target", False)]
    assert [(r.what, r.done) for r in reconcile(registry)] == [("alias", True), ("target", True)]
    assert (serving(home), aliases(registry)["champion"]) == ("2", "2")
    assert (verify(registry), reconcile(registry)) == ([], [])
    assert [e.event for e in Ledger().entries()[-2:]] == ["reconcile", "reconcile"]


def test_an_altered_copy_is_seen_and_replaced(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    (copy,) = (home.serving / TASK / "versions").iterdir()
    (copy / "model.onnx").write_bytes(b"other")
    assert [f.message for f in verify(registry)] == ["local did not serve version 1, whole."]
    reconcile(registry)
    assert serving(home) == "1"


def test_a_damaged_ledger_stops_promotions_and_can_be_begun_anew(
    registry: Registry, make: Any, home: Home
) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    ledger = Ledger()
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RegistryError, match="the tail was cut"):
        rollback(registry, TASK)
    with pytest.raises(RegistryError, match="nothing was changed"):
        reconcile(registry)
    assert serving(home) == "2"
    ledger.retire("restored from nothing")
    assert [r.message for r in adopt(registry, ledger, [TASK], why="after a damage")] == [
        "Took over version 1 as previous.",
        "Took over version 2 as champion.",
    ]
    assert verify(registry) == []
    rollback(registry, TASK)
    assert serving(home) == "1"
    assert verify(registry) == []
