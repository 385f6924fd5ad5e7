"""training/registry/turn.py: one promotion of a task at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from data.errors import RegistryError
from data.paths import Home
from tests.unit.training.registry.world import TASK, serving
from training.registry.client import Registry
from training.registry.ledger import Ledger
from training.registry.locks import locked
from training.registry.promotion import promote, rollback
from training.registry.state import history
from training.registry.verify import verify


def test_a_second_promotion_waits_and_then_says_who_holds_it(registry: Registry, make: Any) -> None:
    version = make(accepted=True)
    with (
        locked(Ledger().folder / "locks" / f"{TASK}.lock", "test"),
        pytest.raises(RegistryError, match="A promotion of dr_grading is under way in another process"),
    ):
        promote(registry, version, lock_timeout=0.1)


def test_concurrent_promotions_come_one_after_the_other(registry: Registry, make: Any, home: Home) -> None:
    promote(registry, make(accepted=True))
    promote(registry, make(accepted=True))
    errors: list[BaseException] = []

    def go() -> None:
        try:
            rollback(registry, TASK)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert serving(home) == "2"
    assert len(history(Ledger().entries(), TASK)) == 6
    assert verify(registry) == []
