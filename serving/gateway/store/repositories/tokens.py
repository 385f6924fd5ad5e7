"""API keys and bearer tokens, as rows. What the secrets are is :mod:`serving.gateway.access`'s."""

from __future__ import annotations

import datetime as dt

from data.errors import Conflict
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Token

from .parts import one, own, page

#: How the name of a page's session begins; ``created_by`` says which token began it.
SESSION = "session of "


def add(
    scope: Scope,
    *,
    kind: str,
    role: str,
    name: str,
    subject: str,
    lookup: str,
    secret_hash: str,
    expires_at: dt.datetime | None,
) -> Token:
    """A new token's row."""
    row = Token(
        tenant_id=scope.tenant,
        kind=kind,
        role=role,
        name=name,
        subject=subject,
        lookup=lookup,
        secret_hash=secret_hash,
        created_by=scope.actor,
        created_at=scope.now,
        expires_at=expires_at,
    )
    scope.session.add(row)
    scope.session.flush()
    scope.audit("token.create", f"token:{row.id}", kind=kind, role=role, expires=_iso(expires_at))
    return row


def get(scope: Scope, token_id: str) -> Token:
    """A token; ``NotFound`` where there is none."""
    return one(scope, Token, token_id, "Token")


def listed(scope: Scope, *, skip: int = 0, limit: int = 1000) -> list[Token]:
    """All tokens, dead ones too, oldest first."""
    query = own(scope, Token).order_by(Token.created_at, Token.id)
    return list(scope.session.scalars(page(query, skip, limit)))


def retire(scope: Scope, token_id: str, successor: str, overlap: dt.timedelta) -> Token:
    """Let a token end when its overlap with its successor is over, or earlier where it would have anyway.

    Raises:
        Conflict: it was revoked, has expired, or has a successor already.
    """
    row = one(scope, Token, token_id, "Token", lock=True)
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= scope.now):
        raise Conflict("The token is revoked or has expired.", hint="Create a new one.")
    if row.replaced_by is not None:
        raise Conflict("The token was rotated already.", hint="Rotate its successor.")
    end = scope.now + overlap
    row.expires_at = end if row.expires_at is None else min(row.expires_at, end)
    row.replaced_by = get(scope, successor).id
    scope.session.flush()
    scope.audit("token.rotate", f"token:{row.id}", successor=row.replaced_by, until=_iso(row.expires_at))
    return row


def revoke(scope: Scope, token_id: str) -> Token:
    """End a token now, and the sessions that it began. Again is no error."""
    row = one(scope, Token, token_id, "Token", lock=True)
    begun = own(scope, Token).where(
        Token.created_by == f"token:{row.id}",
        Token.kind == "bearer",
        Token.name.startswith(SESSION, autoescape=True),
    )
    for each in (row, *scope.session.scalars(begun.with_for_update())):
        if each.revoked_at is None:
            each.revoked_at = scope.now
            scope.session.flush()
            scope.audit("token.revoke", f"token:{each.id}")
    return row


def _iso(moment: dt.datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
