"""What the repositories share. Nothing here is for others."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql, sqlite

from data.errors import NotFound
from serving.features.columns import Features as Looks
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Base, Features, Row, Tenanted
from serving.gateway.store.types import as_id

_R = TypeVar("_R", bound=Row)
_T = TypeVar("_T", bound=Tenanted)

# A page of a list is never longer.
MOST = 1000

#: How an embedding is stored.
STORED = np.dtype("<f2")


def own(scope: Scope, table: type[_T]) -> Select[_T]:
    """A query of the tenant's rows."""
    return select(table).where(table.tenant_id == scope.tenant)


def one(scope: Scope, table: type[_R], key: Any, called: str, *, lock: bool = False) -> _R:
    """The tenant's row of that id, locked until the transaction ends where asked.

    Raises:
        NotFound: there is none, or ``key`` is no id at all.
    """
    known = as_id(key)
    row: _R | None = None
    if known is not None and lock:
        query = own(scope, table).where(table.id == known).with_for_update()
        row = scope.session.scalars(query).one_or_none()
    elif known is not None:
        # The tenant is a part of the key. What this transaction has in hand already is not read again.
        row = scope.session.get(table, {"tenant_id": scope.tenant, "id": known})
    if row is None:
        raise NotFound(f"{called} not found")
    return row


def page(query: Select[_T], skip: int, limit: int) -> Select[_T]:
    """A part of a list: out-of-range numbers are brought into range."""
    return query.offset(min(max(skip, 0), 2**31)).limit(min(max(limit, 0), MOST))


def insert_new(scope: Scope, table: type[Base], **values: Any) -> bool:
    """Add a row unless one with its key is there. Waits for a transaction that is adding the same.

    Returns:
        Whether it was added.
    """
    values["tenant_id"] = scope.tenant
    dialect = scope.session.get_bind().dialect.name
    made = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    statement = made.values(**values).on_conflict_do_nothing().returning(table.__table__.c.tenant_id)
    return scope.session.execute(statement).first() is not None


def looks_of(kept: Features | None) -> Looks:
    """A row's features; none of them where there is no row."""
    if kept is None:
        return Looks()
    raw = kept.embedding
    return Looks(
        None if raw is None else np.frombuffer(raw, STORED).astype(np.float32),
        kept.unusual,
        None if kept.colour is None else np.array(kept.colour, np.float32),
        kept.sharpness,
        kept.exposure,
    )
