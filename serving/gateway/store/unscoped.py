"""The few functions that know no tenant: those that find out which one it is. A test names them all."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import select, update

from data.errors import Conflict, NotFound, UsageError

from .checks import check_text
from .engine import Store
from .tables import Tenant, Token
from .types import as_id

DEFAULT = "default"


def create_tenant(store: Store, name: str) -> Tenant:
    """A new tenant.

    Raises:
        Conflict: there is one of that name.
        UsageError: the name is empty, too long, or begins or ends with a space.
    """
    if not name or name != name.strip() or len(name) > 100 or not name.isprintable():
        raise UsageError("A tenant's name has 1 to 100 printable characters.")
    try:
        with store.unscoped(write=True) as session:
            row = Tenant(name=name, created_at=store.clock())
            session.add(row)
            session.flush()
            return row
    except Conflict:
        raise Conflict(f"There is a tenant {name!r} already.") from None


def ensure_tenant(store: Store, name: str = DEFAULT) -> Tenant:
    """The tenant of that name, made where it isn't there; several processes may ask at once."""
    try:
        return find_tenant(store, name)
    except NotFound:
        try:
            return create_tenant(store, name)
        except Conflict:
            return find_tenant(store, name)


def find_tenant(store: Store, name_or_id: str) -> Tenant:
    """A tenant by its name or id.

    Raises:
        NotFound: there is none.
    """
    check_text(name_or_id, "tenant")
    with store.unscoped() as session:
        by_name = session.scalars(select(Tenant).where(Tenant.name == name_or_id)).one_or_none()
        if by_name is not None:
            return by_name
        known = as_id(name_or_id)
        by_id = session.get(Tenant, known) if known is not None else None
        if by_id is None:
            raise NotFound(f"There is no tenant {name_or_id!r}.", hint="`retiderm token tenants` lists them.")
        return by_id


def all_tenants(store: Store) -> list[Tenant]:
    """Every tenant, by name."""
    with store.unscoped() as session:
        return list(session.scalars(select(Tenant).order_by(Tenant.name)))


def find_token(store: Store, lookup: str) -> Token | None:
    """The token with that public half, whoever's it is."""
    with store.unscoped() as session:
        return session.scalars(select(Token).where(Token.lookup == lookup)).one_or_none()


def mark_used(store: Store, token: Token, now: dt.datetime) -> None:
    """Remember that a token was used."""
    with store.unscoped(write=True) as session:
        session.execute(
            update(Token)
            .where(Token.tenant_id == token.tenant_id, Token.id == token.id)
            .values(last_used_at=now)
        )


def has_tokens(store: Store) -> bool:
    """Whether anybody could come in with a token now."""
    now = store.clock()
    alive = select(Token.id).where(
        Token.revoked_at.is_(None), Token.expires_at.is_(None) | (Token.expires_at > now)
    )
    with store.unscoped() as session:
        return session.execute(alive.limit(1)).first() is not None
