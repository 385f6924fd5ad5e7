"""A turn at a task: its lock, held over a whole history with nothing of the task half done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .heads import kept_heads
from .ledger import Ledger
from .locks import locked
from .recovery import finish_unfinished
from .telling import OnStep

if TYPE_CHECKING:
    from .client import Registry

LOCK_S = 60.0


def task_lock(ledger: Ledger, task: str, timeout: float) -> contextlib.AbstractContextManager[None]:
    """Held by whoever changes what serves a task."""
    from serving.core.pointer import check_name

    check_name(task, "task")
    return locked(ledger.folder / "locks" / f"{task}.lock", f"A promotion of {task}", timeout)


@contextlib.contextmanager
def turn(
    registry: Registry, ledger: Ledger, task: str, *, on_step: OnStep | None, lock_timeout: float
) -> Iterator[None]:
    """Hold a task's lock, once the ledger was found whole and what a crash left of the task is settled.

    Raises:
        LedgerError: the ledger is damaged: nothing is touched then.
        RegistryError: another holds the lock, or what is unfinished can be neither finished nor undone.
    """
    with task_lock(ledger, task, lock_timeout):
        ledger.require_sound(kept_heads(registry, ledger, task))
        finish_unfinished(registry, ledger, task, on_step=on_step)
        yield
