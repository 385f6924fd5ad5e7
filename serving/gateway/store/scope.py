"""One transaction of one tenant: what every repository function takes first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from .checks import check_row
from .tables import Base, Tenanted

if TYPE_CHECKING:
    from .engine import Store


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry for the audit log, before it has its place there."""

    action: str
    about: str
    data: dict[str, Any]


@dataclass(slots=True)
class Scope:
    """A transaction that sees one tenant's rows only.

    - ``actor``: who acts, for the audit log: ``token:<id>``, ``command:<user>``.
    - ``now``: the moment of the transaction, in UTC.
    - ``number``: gives the next number for a row, see ``numbers.py``.
    - ``horizon``: of a list that is read page after page: below which number nothing will be added any more;
      None where that is so of everything.
    - ``afterwards``: what is done when the transaction was written and its locks are free, before the block
      that opened it ends: what may be slow, as an image store.
    """

    session: Session
    tenant: str
    actor: str
    now: dt.datetime
    number: Callable[[], int]
    entries: list[Entry] = field(default_factory=list)
    horizon: int | None = None
    afterwards: list[Callable[[Store], None]] = field(default_factory=list)

    def audit(self, action: str, about: str, **data: Any) -> None:
        """Say in the audit log that this was done. It is written with the transaction, or not at all.

        ``about`` is ``<kind>:<id>``. ``data`` has ids, counts, digests: never a name, an image or a secret.
        """
        self.entries.append(Entry(action, about, data))


class TenantLeak(RuntimeError):
    """A mistake of ours: a transaction was about to touch a row that isn't its tenant's."""


class TenantSession(Session):
    """A session bound to a tenant: its queries see, and its writes touch, that tenant's rows only.

    The repositories name the tenant in each query all the same; this is for the one that would forget it.
    """

    def __init__(self, *args: Any, tenant: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tenant = tenant


@event.listens_for(TenantSession, "do_orm_execute")
def _only_ours(state: ORMExecuteState) -> None:
    session = state.session
    assert isinstance(session, TenantSession)
    tenant = session.tenant
    if state.is_select or state.is_update or state.is_delete:
        state.statement = state.statement.options(
            with_loader_criteria(Tenanted, lambda row: row.tenant_id == tenant, include_aliases=True)
        )


@event.listens_for(TenantSession, "before_flush")
def _only_into_ours(session: TenantSession, *_: Any) -> None:
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, Tenanted) and row.tenant_id != session.tenant:
            raise TenantLeak(f"a row of {type(row).__name__} belongs to another tenant")
        if isinstance(row, Base):
            check_row(row)
