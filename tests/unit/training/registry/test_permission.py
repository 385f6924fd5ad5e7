"""training/registry/permission.py: nothing serves that the gate, or a person, did not let pass."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import RegistryError
from data.paths import Home
from tests.unit.training.registry.world import TASK, aliases, serving
from training.registry.client import Registry
from training.registry.gate import GateRules, approve, judge
from training.registry.ledger import Ledger
from training.registry.promotion import promote


def test_only_what_the_gate_accepted_is_promoted(registry: Registry, make: Any, home: Home) -> None:
    with pytest.raises(RegistryError, match="has not judged"):
        promote(registry, make())
    refused = make()
    assert judge(registry, refused, GateRules(floors={"auc": 0.9})).decision == "refuse"
    # A tag set by hand doesn't count: the ledger does.
    registry.set_tag(refused, "gate.decision", "accept")
    with pytest.raises(RegistryError, match="The gate refused"):
        promote(registry, refused)
    assert serving(home) is None
    assert not [e for e in Ledger().entries() if e.event == "intent"]


@pytest.mark.parametrize("served", [False, True])
def test_an_alias_set_by_hand_opens_no_way_round_the_gate(
    registry: Registry, make: Any, home: Home, served: bool
) -> None:
    if served:
        promote(registry, make(accepted=True))
    refused = make()
    rules = GateRules(floors={"auc": 0.9})
    assert not judge(registry, refused, rules).accepted
    registry.set_alias(TASK, "champion", refused.version)
    with pytest.raises(RegistryError, match="The gate refused"):
        promote(registry, refused)
    again = judge(registry, refused, rules)
    assert (again.decision, again.line) == ("refuse", "new test set" if served else "first version")
    assert serving(home) == ("1" if served else None)
    # Nor does it become what a rollback goes back to.
    better = make(accepted=True)
    promote(registry, better)
    assert aliases(registry) == {"champion": better.version} | ({"previous": "1"} if served else {})


def test_a_decision_against_another_champion_is_stale(registry: Registry, make: Any) -> None:
    one, two = make(accepted=True), make(accepted=True)
    promote(registry, one)
    with pytest.raises(RegistryError, match=r"compared .* with version none, but version 1 is champion now"):
        promote(registry, two)


def test_approval_by_command_and_by_tag(registry: Registry, make: Any, home: Home) -> None:
    rules = GateRules(floors={"auc": 0.7}, requires_approval=True)
    one = make()
    decision = judge(registry, one, rules)
    assert (decision.decision, decision.pending_approval) == ("refuse", True)
    assert decision.headline == "waits for a person's approval"
    with pytest.raises(RegistryError, match="waits for a person"):
        promote(registry, one)
    approve(registry, one, who="dr. alice", why="looked at 40 cases")
    promote(registry, one)
    assert serving(home) == "1"
    two = make()
    judge(registry, two, rules)
    registry.set_tag(two, "approved_by", "dr. bob")  # as MLflow's page does it
    promote(registry, two)
    approvals = [(e.version, e.who, e.why) for e in Ledger().entries() if e.event == "approval"]
    assert approvals == [
        ("1", "dr. alice", "looked at 40 cases"),
        ("2", "dr. bob", "the tag approved_by in MLflow"),
    ]
