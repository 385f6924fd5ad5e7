"""Whether a version may serve: what the gate said of it last, and a person where one is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.errors import RegistryError

from .chain import Entry
from .champion import champion_of
from .ledger import Ledger
from .state import last_gate
from .version import APPROVED, Version

if TYPE_CHECKING:
    from .client import Registry


def require_allowed(registry: Registry, ledger: Ledger, version: Version) -> None:
    """Raise unless the gate's last decision on this bundle allows it to serve now.

    Raises:
        RegistryError: it was not judged, was refused, waits for a person, or was compared with another
            version than serves now.
    """
    name = f"{version.task} version {version.version}"
    entries = ledger.entries()
    champion = champion_of(registry, entries, version.task)
    if champion is not None and champion.digest == version.digest:
        return
    gate = require_not_refused(entries, version)
    if gate.data.get("decision") != "accept":
        if not version.approved_by:
            raise RegistryError(
                f"{name} waits for a person's approval.",
                hint=f"retiderm models approve {version.task} {version.version}",
            )
        _log_approval(ledger, entries, version)
    if gate.data.get("champion") != (champion.version if champion else None):
        raise RegistryError(
            f"The gate compared {name} with version {gate.data.get('champion') or 'none'}, but "
            f"{'version ' + champion.version if champion else 'none'} is champion now.",
            hint=_judge_it(version),
        )


def require_not_refused(entries: Sequence[Entry], version: Version) -> Entry:
    """The gate's last decision on a bundle: it accepts it, or leaves it to a person's approval.

    Raises:
        RegistryError: it was not judged, or was refused.
    """
    name = f"{version.task} version {version.version}"
    gate = last_gate(entries, version.task, version.digest)
    if gate is None:
        raise RegistryError(f"The gate has not judged {name}.", hint=_judge_it(version))
    if gate.data.get("decision") != "accept" and not gate.data.get("pending_approval"):
        raise RegistryError(f"The gate refused {name}: {gate.why}", hint="Train a better one.")
    return gate


def _judge_it(version: Version) -> str:
    return f"Judge it: retiderm models promote {version.task} {version.version} --judge."


def _log_approval(ledger: Ledger, entries: Sequence[Entry], version: Version) -> None:
    """An approval by tag in MLflow's page is written down when it first counts."""
    for entry in entries:
        if entry.event == "approval" and entry.digest == version.digest and entry.who == version.approved_by:
            return
    ledger.append(
        "approval",
        task=version.task,
        version=version.version,
        digest=version.digest,
        who=version.approved_by,
        why=f"the tag {APPROVED} in MLflow",
    )
