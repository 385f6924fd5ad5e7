"""What the ledger's entries add up to: what serves, what is unfinished, what served when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .chain import Entry


@dataclass(frozen=True, slots=True)
class Served:
    """One row of a task's history. ``until`` is empty for what serves now."""

    task: str
    version: str
    digest: str
    action: str  # promote, rollback
    since: str
    until: str
    who: str
    why: str

    def to_dict(self) -> dict[str, str]:
        """JSON's own types."""
        return asdict(self)


def unfinished(entries: Sequence[Entry], task: str | None = None) -> list[Entry]:
    """The intents that were neither done nor undone, oldest first."""
    ended = {entry.data.get("op") for entry in entries if entry.event in ("done", "undone")}
    return [
        entry
        for entry in entries
        if entry.event == "intent" and entry.seq not in ended and (task is None or entry.task == task)
    ]


def now_serving(entries: Sequence[Entry], task: str) -> Entry | None:
    """The ``done`` entry of what should serve a task, or None."""
    return next((e for e in reversed(entries) if e.event == "done" and e.task == task), None)


def after(done: Entry) -> Mapping[str, Any]:
    """What a ``done`` entry says of aliases and targets."""
    found = done.data.get("after", {})
    return found if isinstance(found, Mapping) else {}


def served_digests(entries: Sequence[Entry], task: str) -> set[str]:
    """The bundles that served a task at some time."""
    return {e.digest for e in entries if e.event == "done" and e.task == task}


def last_challenge(entries: Sequence[Entry], task: str) -> Entry | None:
    """The last ``challenge`` entry of a task, whatever became of it."""
    return next((e for e in reversed(entries) if e.event == "challenge" and e.task == task), None)


def now_challenging(entries: Sequence[Entry], task: str) -> Entry | None:
    """The ``challenge`` entry of what should answer beside a task's champion, or None.

    It ends with a ``withdraw`` entry, with another ``challenge``, or when the same bundle comes to serve.
    """
    served: set[str] = set()
    for entry in reversed(entries):
        if entry.task != task:
            continue
        if entry.event == "withdraw":
            return None
        if entry.event == "done":
            served.add(entry.digest)
        if entry.event == "challenge":
            return None if entry.digest in served else entry
    return None


def last_gate(entries: Sequence[Entry], task: str, digest: str) -> Entry | None:
    """The gate's last decision on a bundle, or None."""
    return next(
        (e for e in reversed(entries) if e.event == "gate" and e.task == task and e.digest == digest), None
    )


def history(entries: Sequence[Entry], task: str | None = None) -> list[Served]:
    """What served when, who did it and why, oldest first."""
    intents = {entry.seq: entry for entry in entries if entry.event == "intent"}
    rows: list[Served] = []
    open_row: dict[str, int] = {}
    for entry in entries:
        if entry.event != "done" or (task is not None and entry.task != task):
            continue
        if entry.task in open_row:
            index = open_row[entry.task]
            rows[index] = Served(**{**asdict(rows[index]), "until": entry.time})
        intent = intents.get(entry.data.get("op", -1), entry)
        open_row[entry.task] = len(rows)
        rows.append(
            Served(
                task=entry.task,
                version=entry.version,
                digest=entry.digest,
                action=str(intent.data.get("action", "promote")),
                since=entry.time,
                until="",
                who=intent.who,
                why=intent.why,
            )
        )
    return rows
