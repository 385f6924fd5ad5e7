"""A new ledger in place of a damaged one: begun with what serves, for the tasks that the old one knew."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import RegistryError, RetidermError

from .heads import keep_head, tasks_of_old_keys
from .ledger import Ledger
from .reconcile import Repair
from .targets import default_targets
from .version import CHAMPION, PREVIOUS

if TYPE_CHECKING:
    from .client import Registry


def begin_anew(registry: Registry, ledger: Ledger, task: str | None, why: str) -> tuple[Path, list[Repair]]:
    """Set a ledger aside and begin a new one. Gives where the old one is, and what the new one took over.

    ``task`` is one that was the old ledger's, where that ledger can't say so itself any more.

    Raises:
        RegistryError: no reason is given, or nobody can say which tasks were the old ledger's: nothing is
            changed then.
    """
    if not why:
        raise RegistryError("A ledger is not set aside without a reason.", hint="Add --why.")
    # Before it is set aside, since the old key tells which heads in MLflow are this ledger's.
    heads = registry.ledger_heads()
    tasks = ledger.known()[0] | tasks_of_old_keys(registry, ledger)
    if task is not None and task in heads:
        tasks.add(task)
    if not tasks and heads and task is None:
        raise RegistryError(
            "Ledger and key are both lost, so nobody can say which of MLflow's tasks were this ledger's.",
            hint="Name them one after the other: retiderm models reconcile TASK --new-ledger --why …; "
            f"MLflow knows {', '.join(sorted(heads))}.",
        )
    aside = ledger.retire(why)
    return aside, adopt(registry, ledger, tasks, why=why)


def adopt(
    registry: Registry, ledger: Ledger, tasks: Collection[str], *, why: str, who: str | None = None
) -> list[Repair]:
    """Begin a new ledger's history with what serves: each task's previous and champion, where they are whole.

    For after :meth:`Ledger.retire`, with the tasks that the old one knew. The gate's decisions are not taken
    over: what waited is judged again.
    """
    found = []
    targets = [target.spec() for target in default_targets(registry)]
    for task in sorted(tasks):
        known: dict[str, str | None] = {PREVIOUS: None, CHAMPION: None}
        for alias in known:
            version = registry.by_alias(task, alias)
            if version is None:
                continue
            try:
                registry.bundle(version)
            except RetidermError as error:
                found.append(Repair(task, "alias", f"Left out the {alias}: {error.message}", False))
                continue
            known = {**known, alias: version.version}
            ledger.append(
                "done",
                task=task,
                version=version.version,
                digest=version.digest,
                who=who,
                why=why,
                data={"action": "adopt", "after": {"aliases": known}, "targets": targets},
            )
            found.append(Repair(task, "alias", f"Took over version {version.version} as {alias}.", True))
        keep_head(registry, ledger, task)
    return found
