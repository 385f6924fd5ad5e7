"""The audit log: entries that only grow, each chained to the one before by its hash.

A changed, removed or inserted entry shows in :func:`verify`. A cut tail is a sound chain that is too short:
it shows against a head that was kept elsewhere (:func:`head`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.files import canonical_json, sha256_bytes
from serving.gateway.store.checks import check_value
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import AuditEntry, AuditHead

from .parts import insert_new, own, page

_NO_HASH = "0" * 64
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: its last entry's number and hash; number 0 is an empty log."""

    seq: int
    hash: str


def write_entries(scope: Scope) -> None:
    """Add what the transaction has said, at its end, so that others wait for the log as briefly as can be."""
    if not scope.entries:
        return
    insert_new(scope, AuditHead, seq=0, hash=_NO_HASH)
    last = scope.session.scalars(own(scope, AuditHead).with_for_update()).one()
    before = scope.session.scalars(
        own(scope, AuditEntry).order_by(AuditEntry.seq.desc()).limit(1)
    ).one_or_none()
    # A clock that was set back must not turn the log round.
    at = max(scope.now, before.at) if before is not None else scope.now
    for entry in scope.entries:
        check_value(entry.data, "audit data")
        row = AuditEntry(
            tenant_id=scope.tenant,
            seq=last.seq + 1,
            at=at,
            actor=scope.actor,
            action=entry.action,
            about=entry.about,
            data=canonical_json(entry.data),
            prev=last.hash,
        )
        row.hash = _hash(row)
        scope.session.add(row)
        last.seq, last.hash = row.seq, row.hash
    scope.entries.clear()
    scope.session.flush()


def entries(
    scope: Scope, *, about: str | None = None, action: str | None = None, after: int = 0, limit: int = 100
) -> list[AuditEntry]:
    """Entries in order, from the one after number ``after``."""
    query = own(scope, AuditEntry).where(AuditEntry.seq > after)
    if about is not None:
        query = query.where(AuditEntry.about == about)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    return list(scope.session.scalars(page(query.order_by(AuditEntry.seq), 0, limit)))


def data_of(entry: AuditEntry) -> dict[str, Any]:
    """What an entry tells beside its columns."""
    found: dict[str, Any] = json.loads(entry.data)
    return found


def head(scope: Scope) -> Head:
    """Where the log ends. Keep it elsewhere now and then, and give it to :func:`verify` later."""
    row = scope.session.scalars(own(scope, AuditHead)).one_or_none()
    return Head(row.seq, row.hash) if row is not None else Head(0, _NO_HASH)


def verify(scope: Scope, kept: Mapping[str, Head] | None = None) -> list[str]:
    """Everything that is wrong with the log, in order; empty for a sound one.

    ``kept`` are heads kept elsewhere, by a name for the place: each must be a place on this chain.
    """
    problems: list[str] = []
    previous, seq, when = _NO_HASH, 0, None
    end = head(scope)
    known = {place: h for place, h in {"the head": end, **(kept or {})}.items() if h.seq}
    while found := entries(scope, after=seq, limit=_BATCH):
        for row in found:
            if row.seq != seq + 1:
                problems.append(f"entries {seq + 1} to {row.seq - 1} are missing")
            if row.prev != previous:
                problems.append(f"entry {row.seq} does not follow the one before it")
            if row.hash != _hash(row):
                problems.append(f"entry {row.seq} was altered")
            if when is not None and row.at < when:
                problems.append(f"entry {row.seq} is older than the one before it")
            problems += [
                f"{place} names another entry {row.seq}"
                for place, h in known.items()
                if h.seq == row.seq and h.hash != row.hash
            ]
            previous, seq, when = row.hash, row.seq, row.at
            scope.session.expunge(row)
    problems += [
        f"the log ends at entry {seq}; {place} knows entry {h.seq}"
        for place, h in known.items()
        if h.seq > seq
    ]
    if end.seq < seq:
        problems.append(f"the head is behind the log's last entry, {seq}")
    return problems


def _hash(row: AuditEntry) -> str:
    said = {
        "tenant": row.tenant_id,
        "seq": row.seq,
        "at": row.at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
        "actor": row.actor,
        "action": row.action,
        "about": row.about,
        "data": row.data,
        "prev": row.prev,
    }
    return sha256_bytes(canonical_json(said).encode())
