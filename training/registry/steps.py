"""The steps of a promotion or rollback, from its intent in the ledger to ``done``.

Each may be done again, so that a later process can finish what a crash left. After each a ``step`` entry
follows.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.errors import LedgerError, RetidermError

from .aftercare import look_after
from .chain import Entry
from .ledger import Ledger
from .state import unfinished
from .targets import Target, in_order
from .telling import OnStep, tell, words
from .version import CHAMPION, Version

if TYPE_CHECKING:
    from .client import Registry

_LOG = logging.getLogger("retiderm.registry")


class InDoubt(LedgerError):
    """Nobody can say whether a promotion is done: it is neither finished nor undone until somebody can."""


def carry_out(
    registry: Registry,
    ledger: Ledger,
    intent: Entry,
    version: Version,
    targets: Sequence[Target],
    on_step: OnStep | None,
    finished_by: str | None = None,
) -> None:
    """Do what an intent says, step by step, write down that it is done, and look after what follows.

    ``on_step`` is told each step when it was done, before and after its ledger entry. ``finished_by`` is who
    finishes it, where that isn't who began.

    Raises:
        InDoubt: it may be done or not; nothing may be undone then.
        RetidermError: a step failed.
    """
    for name, action in _steps(registry, intent, version, targets):
        action()
        tell(on_step, name)
        note(ledger, intent, "step", step=name)
        tell(on_step, f"{name} logged")
    _note_done(ledger, intent, finished_by)
    # It serves: what fails from here on, whatever it is, is no reason to take that back.
    look_after(registry, ledger, version.task, targets, on_step)


def set_aliases(registry: Registry, task: str, aliases: Mapping[str, str | None]) -> None:
    """Let each alias name its version, or none."""
    # Champion last: until then the alias that serves still names what serves.
    for alias in sorted(aliases, key=lambda name: name == CHAMPION):
        registry.set_alias(task, alias, aliases[alias])


def note(ledger: Ledger, intent: Entry, event: str, *, why: str = "", **data: Any) -> None:
    """Write down what became of an intent."""
    ledger.append(
        event,
        task=intent.task,
        version=intent.version,
        digest=intent.digest,
        why=why,
        data={"op": intent.seq, **data},
    )


def _steps(
    registry: Registry, intent: Entry, version: Version, targets: Sequence[Target]
) -> list[tuple[str, Callable[[], None]]]:
    wanted: Mapping[str, str | None] = intent.data["after"]["aliases"]

    def prepare() -> None:
        for target in targets:
            target.prepare(version)

    return [
        ("copy", prepare),
        ("aliases", functools.partial(set_aliases, registry, version.task, wanted)),
        *(
            (f"target {target.name}", functools.partial(target.apply, version))
            for target in in_order(targets)
        ),
    ]


def _note_done(ledger: Ledger, intent: Entry, finished_by: str | None) -> None:
    more = {"finished_by": finished_by} if finished_by else {}
    try:
        note(ledger, intent, "done", after=intent.data["after"], targets=intent.data["targets"], **more)
    except Exception as error:
        # The line may be on disk all the same: its head, on a full disk, comes after it.
        if _is_open(ledger, intent):
            raise
        _LOG.warning("%s: the ledger's line is written, then: %s", intent.task, words(error))


def _is_open(ledger: Ledger, intent: Entry) -> bool:
    """Whether the ledger has neither ``done`` nor ``undone`` for an intent."""
    try:
        left = unfinished(ledger.entries(intent.task), intent.task)
    except (RetidermError, OSError) as error:
        raise InDoubt(
            f"Whether version {intent.version} of {intent.task} serves can't be read from the ledger: "
            f"{words(error)}",
            hint="Nothing was undone. Mend the cause, then: retiderm models reconcile.",
        ) from error
    return any(entry.seq == intent.seq for entry in left)
