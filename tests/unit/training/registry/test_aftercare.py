"""training/registry/aftercare.py: what fails once a version serves takes nothing back."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import RegistryError
from data.paths import Home
from tests.unit.training.registry.world import TASK, Elsewhere, aliases, full_after, serving
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.promotion import promote
from training.registry.reconcile import reconcile
from training.registry.targets import LocalTarget
from training.registry.verify import verify


def test_what_fails_after_it_serves_is_no_reason_to_take_it_back(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Registry, task: str, head: str) -> None:
        raise RegistryError("MLflow is away")

    other = Elsewhere()
    other.fails = "tidy"
    version = make(accepted=True)
    monkeypatch.setattr(Registry, "keep_ledger_head", away)
    assert promote(registry, version, targets=[LocalTarget(registry), other]).changed
    assert (serving(home), Ledger().entries()[-1].event) == ("1", "done")


@pytest.mark.parametrize("where", ["done", "head", "head kept", "challenger settled", "tidy", "full"])
def test_a_bug_after_it_is_done_undoes_nothing(
    registry: Registry,
    make: Any,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    third = make(accepted=True)

    def bug(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    def told(step: str) -> None:
        if step == where:
            bug()

    with monkeypatch.context() as patch:
        if where == "head":
            patch.setattr(Registry, "keep_ledger_head", bug)
        if where == "tidy":
            patch.setattr(LocalTarget, "tidy", bug)
        if where == "full":
            full_after(patch, "done")
        assert promote(registry, third, on_step=told).changed
    assert "retiderm models reconcile" in caplog.text or where == "full"
    assert (serving(home), aliases(registry)["champion"]) == ("3", "3")
    assert [e.event for e in Ledger().entries() if e.data.get("op") is not None][-1] == "done"
    reconcile(registry)
    assert (verify(registry), reconcile(registry)) == ([], [])
    # The head that lagged, and the copy that was left.
    assert f'"seq":{Ledger().entries()[-1].seq}' in registry.ledger_heads()[TASK].replace(" ", "")
    kept = sorted(p.name.split("-")[0] for p in (home.serving / TASK / "versions").iterdir())
    assert kept == ["2", "3"]
