"""What follows once a version serves: the head kept in MLflow, the challenger settled, old copies removed.

It serves by then, so none of it is a reason to take that back: what fails is logged, and ``retiderm models
reconcile`` or the next promotion does it again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .beside import settle
from .heads import keep_head
from .ledger import Ledger
from .targets import Target
from .telling import OnStep, tell, words
from .version import CHAMPION, PREVIOUS

if TYPE_CHECKING:
    from .client import Registry

_LOG = logging.getLogger("retiderm.registry")


def look_after(
    registry: Registry, ledger: Ledger, task: str, targets: Iterable[Target], on_step: OnStep | None
) -> None:
    """All that follows a ``done``. The caller holds the task's lock. Raises nothing."""
    with _no_matter(task, "done"):
        tell(on_step, "done")
    catch_up(registry, ledger, task)
    with _no_matter(task, "head kept"):
        tell(on_step, "head kept")
    with _no_matter(task, "settling the challenger"):
        # What can't be settled verify tells, and reconcile mends.
        settle(registry, ledger, task)
    with _no_matter(task, "challenger settled"):
        tell(on_step, "challenger settled")
    tidy(registry, task, targets)


def catch_up(registry: Registry, ledger: Ledger, task: str) -> None:
    """Keep the ledger's head with the task: it may lag behind. Raises nothing, as :func:`tidy`."""
    with _no_matter(task, "keeping the ledger's head"):
        keep_head(registry, ledger, task)


def tidy(registry: Registry, task: str, targets: Iterable[Target]) -> None:
    """Remove copies that neither champion nor previous needs. The caller holds the task's lock.

    Raises nothing: what fails is logged and left to ``retiderm models reconcile``, and to the next promotion.
    """
    with _no_matter(task, "tidying"):
        keep = [v for v in registry.versions(task) if {CHAMPION, PREVIOUS} & set(v.aliases)]
        for target in targets:
            with _no_matter(task, f"tidying {target.name}"):
                target.tidy(task, keep)


@contextlib.contextmanager
def _no_matter(task: str, what: str) -> Iterator[None]:
    """Log what goes wrong, a mistake of ours too, instead of raising it."""
    try:
        yield
    except Exception as error:
        _LOG.warning(
            "%s serves as the ledger says, but %s failed: %s. Mend it: retiderm models reconcile.",
            task,
            what,
            words(error),
        )
