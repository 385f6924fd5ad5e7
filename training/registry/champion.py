"""Which version is champion: by the ledger, not by MLflow's alias, which anyone may set in its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.errors import RegistryError

from .chain import Entry
from .state import now_serving
from .version import Version

if TYPE_CHECKING:
    from .client import Registry


def champion_of(registry: Registry, entries: Sequence[Entry], task: str) -> Version | None:
    """The version that the ledger's last promotion of a task let serve; None where there was none.

    Raises:
        RegistryError: MLflow has that version no longer, so that nothing can be compared with it.
    """
    serving = now_serving(entries, task)
    if serving is None:
        return None
    version = registry.by_digest(task, serving.digest)
    if version is not None:
        return version
    raise RegistryError(
        f"By the ledger {task} version {serving.version} is champion, but MLflow has it no longer.",
        hint=f"Restore MLflow's database from a backup, or go back: retiderm models rollback {task}.",
    )
