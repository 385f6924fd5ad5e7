"""Making, rotating and revoking tokens."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal

from data.errors import UsageError
from serving.gateway.store.repositories import tokens
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Token
from serving.gateway.store.types import new_id

from .roles import Role
from .secret import make

Kind = Literal["api_key", "bearer"]


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made. ``text`` is the secret: show it once, then it is gone."""

    row: Token
    text: str = field(repr=False)


def create(
    scope: Scope,
    *,
    role: Role,
    name: str,
    kind: Kind = "api_key",
    subject: str | None = None,
    lives: dt.timedelta | None = None,
) -> Issued:
    """A new token of the scope's tenant.

    ``name`` is for people. ``subject`` is whom it speaks for; by default itself, so that two tokens' face
    scans are apart. ``lives`` is how long; None: until it is revoked.

    Raises:
        UsageError: the name is empty, or the life is not above zero.
    """
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise UsageError("A token needs a name of 1 to 200 printable characters.")
    if subject is not None and not (subject.strip() and subject.isprintable() and len(subject) <= 200):
        raise UsageError("A token's subject has 1 to 200 printable characters.")
    return _issue(scope, kind, role, name, subject or new_id(), _end(scope.now, lives))


def rotate(
    scope: Scope, token_id: str, *, overlap: dt.timedelta, lives: dt.timedelta | None = None
) -> Issued:
    """A successor with the same name, role and subject. The old one goes on for ``overlap``, then ends.

    ``lives`` is the successor's life; None: as long as the old one was to live from its making.

    Raises:
        NotFound, Conflict: there is no such token, or it is revoked, expired or rotated already.
    """
    if overlap < dt.timedelta(0):
        raise UsageError("The overlap is not below zero.")
    old = tokens.get(scope, token_id)
    if lives is None and old.expires_at is not None:
        lives = old.expires_at - old.created_at
    issued = _issue(
        scope,
        "bearer" if old.kind == "bearer" else "api_key",
        Role(old.role),
        old.name,
        old.subject,
        _end(scope.now, lives),
    )
    tokens.retire(scope, old.id, issued.row.id, overlap)
    return issued


def revoke(scope: Scope, token_id: str) -> Token:
    """End a token now: the next request with it is refused."""
    return tokens.revoke(scope, token_id)


def _issue(
    scope: Scope, kind: Kind, role: Role, name: str, subject: str, expires_at: dt.datetime | None
) -> Issued:
    text, secret = make(kind)
    row = tokens.add(
        scope,
        kind=kind,
        role=role.value,
        name=name,
        subject=subject,
        lookup=secret.lookup,
        secret_hash=secret.hash,
        expires_at=expires_at,
    )
    return Issued(row, text)


def _end(now: dt.datetime, lives: dt.timedelta | None) -> dt.datetime | None:
    if lives is None:
        return None
    if lives <= dt.timedelta(0):
        raise UsageError("A token's life is above zero.")
    try:
        return now + lives
    except OverflowError:
        raise UsageError("A token's life is too long.", hint="Leave it out for one without an end.") from None
