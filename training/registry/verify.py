"""Is what serves what was promoted, and is the history whole? One line for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from data.errors import LedgerError, RetidermError

from .heads import kept_heads
from .ledger import Ledger
from .reconcile import reconcile
from .signing import KEY_VARIABLE, readable_by_others

if TYPE_CHECKING:
    from .client import Registry

Kind = Literal["ledger", "key", "unfinished", "drift", "bundle", "unreachable"]

_HINTS: dict[Kind, str] = {
    "ledger": "restore it from a backup, or set it aside: retiderm models reconcile --new-ledger --why …",
    "key": "chmod 600 the key file, or keep it elsewhere and name it with " + KEY_VARIABLE,
    "unfinished": "retiderm models reconcile",
    "drift": "retiderm models reconcile",
    "bundle": "restore MLflow's artifacts from a backup, or promote another version",
    "unreachable": "start it, then verify again",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    task: str
    message: str

    @property
    def hint(self) -> str:
        """What to do about it."""
        return _HINTS[self.kind]

    def to_dict(self) -> dict[str, str]:
        """JSON's own types."""
        return {**asdict(self), "hint": self.hint}


def verify(
    registry: Registry, task: str | None = None, *, ledger: Ledger | None = None, bundles: bool = True
) -> list[Finding]:
    """Check the ledger and its heads, what is unfinished, aliases, targets and (``bundles``) every bundle.

    Nothing is changed. An empty list means that all is as it should be.
    """
    ledger = ledger or Ledger()
    found: list[Finding] = []
    heads: dict[str, str] = {}
    try:
        heads = kept_heads(registry, ledger, task)
    except RetidermError as error:
        found.append(Finding("unreachable", "", error.message))
    found += [Finding("ledger", "", problem.message) for problem in ledger.verify(heads)]
    if readable_by_others(ledger.key_path) and not _is_mounted(ledger):
        found.append(
            Finding("key", "", f"the key {ledger.key_path.name} can be read by others than its owner")
        )
    try:
        repairs = reconcile(registry, task, ledger=ledger, dry_run=True)
    except LedgerError:
        repairs = []  # told above, line by line
    except RetidermError as error:
        repairs = []
        found.append(Finding("unreachable", task or "", error.message))
    for item in repairs:
        kind: Kind = "unfinished" if item.what == "promotion" else "drift"
        found.append(Finding(kind, item.task, item.message))
    if bundles and not any(item.kind == "unreachable" for item in found):
        found += _bundles(registry, [task] if task else registry.tasks())
    return found


def _bundles(registry: Registry, tasks: Iterable[str]) -> list[Finding]:
    found = []
    for task in tasks:
        for version in registry.versions(task):
            if not version.digest:
                continue  # not ours: another project's model in the same MLflow
            for read in (registry.bundle, registry.predictions):
                try:
                    read(version)
                except RetidermError as error:
                    found.append(Finding("bundle", task, f"version {version.version}: {error.message}"))
    return found


def _is_mounted(ledger: Ledger) -> bool:
    """A mounted secret's mode is the cluster's business."""
    return ledger.key_path.parent != ledger.folder
