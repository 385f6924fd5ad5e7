"""What became of a promotion that stopped half way: finished by the next process, or undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.errors import LedgerError, RegistryError, RetidermError

from .chain import Entry
from .ledger import Ledger, whoami
from .state import unfinished
from .steps import carry_out, note, set_aliases
from .targets import Target, in_order, target_from_spec
from .telling import OnStep

if TYPE_CHECKING:
    from .client import Registry


def finish_unfinished(
    registry: Registry, ledger: Ledger, task: str, *, on_step: OnStep | None = None
) -> list[str]:
    """Finish what a crash left of a task's promotions, or undo it where it can't be finished.

    The caller holds the task's lock. Gives a sentence for each.
    """
    told = []
    for intent in unfinished(ledger.entries(), task):
        targets = [target_from_spec(registry, spec) for spec in intent.data["targets"]]
        name = f"{intent.data['action']} of {task} to version {intent.version}"
        try:
            version = registry.get(task, intent.digest)
            carry_out(registry, ledger, intent, version, targets, on_step, finished_by=whoami())
        except LedgerError:
            raise  # what can't be written down is not done, nor undone
        except RetidermError as error:
            undo(registry, ledger, intent, targets, error.message)
            told.append(f"Undid the unfinished {name}: {error.message}")
        else:
            told.append(f"Finished the unfinished {name}.")
    return told


def undo(registry: Registry, ledger: Ledger, intent: Entry, targets: Sequence[Target], reason: str) -> None:
    """Put aliases and targets back to what the intent found, and say so in the ledger.

    Raises:
        RegistryError: something could not be put back: the intent stays open, for ``reconcile``.
    """
    before = intent.data["before"]
    failed = []
    for target in reversed(in_order(targets)):
        try:
            target.restore(intent.task, before["targets"].get(target.name))
        except RetidermError as error:
            failed.append(f"{target.name}: {error.message}")
    try:
        set_aliases(registry, intent.task, before["aliases"])
    except RetidermError as error:
        failed.append(f"aliases: {error.message}")
    if failed:
        raise RegistryError(
            f"{reason} It could not all be undone either: {' '.join(failed)}",
            hint="Mend the cause, then: retiderm models reconcile.",
        )
    note(ledger, intent, "undone", why=reason)
