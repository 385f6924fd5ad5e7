"""What a promotion finds in its task, and how the aliases shall be once it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .chain import Entry
from .ledger import Ledger
from .state import now_challenging, now_serving
from .version import CHALLENGER, CHAMPION, PREVIOUS, Version

if TYPE_CHECKING:
    from .client import Registry


@dataclass(frozen=True, slots=True)
class Plan:
    """From what serves to another version.

    ``champion`` is the version that serves by the ledger, None where nothing does. ``before`` and ``after``
    are aliases with their versions. ``named`` says whether MLflow's alias names the version already;
    ``challenge`` how the version answers beside the champion until now.
    """

    champion: str | None
    before: Mapping[str, str | None]
    after: Mapping[str, str | None]
    named: bool
    challenge: Mapping[str, Any] | None

    @classmethod
    def of(cls, registry: Registry, ledger: Ledger, version: Version) -> Plan:
        """What letting a version serve changes, as MLflow and the ledger stand now."""
        task = version.task
        versions = registry.versions(task)
        aliases = {alias: v.version for v in versions for alias in v.aliases}
        # What served is the ledger's to say: an alias that was set by hand must be neither kept nor put back.
        entries = ledger.entries(task)
        serving = now_serving(entries, task)
        champion = serving.version if serving else None
        found = champion if any(v.version == champion for v in versions) else None
        named = aliases.get(CHAMPION) == version.version
        aliases = {alias: number for alias, number in aliases.items() if alias != CHAMPION}
        if found is not None:
            aliases[CHAMPION] = found
        previous = found if found not in (None, version.version) else aliases.get(PREVIOUS)
        after: dict[str, str | None] = {
            CHAMPION: version.version,
            PREVIOUS: previous if previous != version.version else None,
        }
        if aliases.get(CHALLENGER) == version.version:
            after[CHALLENGER] = None
        before = {alias: aliases.get(alias) for alias in after}
        return cls(champion, before, after, named, _challenge(now_challenging(entries, task), version))


def _challenge(beside: Entry | None, version: Version) -> dict[str, Any] | None:
    """How a version answers beside the champion now."""
    if beside is None or beside.digest != version.digest:
        return None
    return {"mode": beside.data["mode"], "share": beside.data["share"], "since": beside.time}
