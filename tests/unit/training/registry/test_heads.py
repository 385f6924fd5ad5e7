"""training/registry/heads.py: a cut or lost ledger shows against MLflow; another team's does no harm."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from data.errors import RegistryError
from data.paths import Home
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.promotion import promote
from training.registry.verify import verify


def test_a_cut_ledger_shows_against_mlflow(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    ledger = Ledger()
    old = (ledger.path.read_bytes(), ledger.head_path.read_bytes())
    promote(registry, make(accepted=True))
    ledger.path.write_bytes(old[0])
    ledger.head_path.write_bytes(old[1])
    findings = verify(registry)
    assert findings[0].kind == "ledger"
    assert "the tail was cut: MLflow's tag of dr_grading knows" in findings[0].message


def test_an_empty_ledger_where_mlflow_knows_one_is_told(
    registry: Registry, make: Any, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    promote(registry, make(accepted=True))
    shutil.rmtree(home.registry)
    (finding,) = verify(registry)
    assert "the ledger is empty, but MLflow's tag of dr_grading knows entry" in finding.message


def test_another_teams_ledger_in_the_same_mlflow_does_no_harm(
    registry: Registry, make: Any, home: Home, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, make(accepted=True))
    monkeypatch.setenv("RETIDERM_HOME", str(tmp_path / "theirs"))
    promote(registry, make("skin_lesion", accepted=True))
    assert verify(registry) == []
    # But what one team promoted, another's ledger knows nothing of.
    with pytest.raises(RegistryError, match="belongs to another ledger"):
        promote(registry, make(accepted=True))
