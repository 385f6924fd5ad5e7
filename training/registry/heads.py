"""The ledger's head, kept in MLflow as a tag of each task, so that a tail that is cut here shows there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from data.errors import LedgerError

from .chain import Head
from .ledger import Ledger
from .signing import load_key

if TYPE_CHECKING:
    from .client import Registry


def keep_head(registry: Registry, ledger: Ledger, task: str) -> None:
    """Keep where the ledger stands now with a task."""
    head = ledger.head()
    if head is not None:
        registry.keep_ledger_head(task, head.to_json())


def kept_heads(registry: Registry, ledger: Ledger, task: str | None = None) -> dict[str, str]:
    """The heads in MLflow that this ledger must agree with, by a name for the place.

    One MLflow may serve several teams, each with a ledger of its own. Ours are those of ``task``, of every
    task that the ledger names, and of whatever its key signed. Without a ``task`` an empty ledger must agree
    with all of them, since it may be what is left of ours.
    """
    known, public = ledger.known()
    everything = not known and task is None
    return {
        f"MLflow's tag of {name}": text
        for name, text in registry.ledger_heads().items()
        if everything or name == task or name in known or _signed_by(text, public)
    }


def tasks_of_old_keys(registry: Registry, ledger: Ledger) -> set[str]:
    """The tasks whose heads in MLflow were signed by this ledger's key or by one that was set aside with it.

    They are how a ledger whose lines are lost still knows its tasks. A task that was taken over since has a
    head of the new key.
    """
    publics = {ledger.known()[1]}
    for path in ledger.folder.glob("retired-*/ledger.key"):
        with contextlib.suppress(LedgerError):
            publics.add(load_key(path).public)
    publics.discard("")
    return {
        name
        for name, text in registry.ledger_heads().items()
        if any(_signed_by(text, public) for public in publics)
    }


def _signed_by(text: str, public: str) -> bool:
    try:
        head = Head.from_json(text)
    except LedgerError:
        return False
    return head.public_key == public
