"""Idempotency keys: a repeated request gets the first one's answer, and is done once.

The key's row is written by the transaction that does the work, so there is no state between: either both are
there or neither is. Of two requests at once, the second waits for the first's transaction::

    with store.write(tenant, actor) as scope:
        earlier = idempotency.claim(scope, key, route=..., owner=..., digest=...)
        if earlier is not None:
            return earlier
        ...                                         # the work
        idempotency.answer(scope, key, route=..., owner=..., status=200, body=..., about="case:...")
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, delete

from data.errors import Conflict
from serving.gateway.store.checks import check_text
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import IdempotencyKey

from .parts import insert_new, own


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to the first request with a key. ``body`` is None once what it told of was erased."""

    status: int
    body: dict[str, Any] | None


def find(scope: Scope, key: str, *, route: str, owner: str, digest: str) -> Answer | None:
    """The answer that a key has already: look before slow work, and :func:`claim` all the same.

    Raises:
        Conflict: the key was used for another request.
    """
    row = _row(scope, key, route, owner)
    return None if row is None or _expired(scope, row) else _answer(row, digest)


def claim(
    scope: Scope, key: str, *, route: str, owner: str, digest: str, keep: dt.timedelta = dt.timedelta(days=1)
) -> Answer | None:
    """Take a key for this transaction's work, or get the answer that it has already.

    ``digest`` is over the request's content. A key is kept for ``keep``, then free again.

    Raises:
        Conflict: the key was used for another request.
    """
    values = {"owner": owner, "route": route, "key": check_text(key, "the idempotency key", 200)}
    fresh = {
        "request_digest": digest,
        "created_at": scope.now,
        "expires_at": scope.now + keep,
        "status": None,
        "body": None,
        "about": None,
    }
    if insert_new(scope, IdempotencyKey, **values, **fresh):
        return None
    row = _row(scope, key, route, owner, lock=True)
    if row is None:  # a clean-up took it between the two statements
        return None if insert_new(scope, IdempotencyKey, **values, **fresh) else _again()
    if _expired(scope, row):
        for name, value in fresh.items():
            setattr(row, name, value)
        scope.session.flush()
        return None
    return _answer(row, digest)


def answer(
    scope: Scope,
    key: str,
    *,
    route: str,
    owner: str,
    status: int,
    body: dict[str, Any],
    about: str | None = None,
) -> None:
    """Keep the answer of the work that :func:`claim` began, in the same transaction.

    ``about`` names whom it tells of, as ``patient:<id>``: an erasure takes the body away then.
    """
    row = _row(scope, key, route, owner)
    if row is None or row.status is not None:
        raise ValueError("answer() belongs into the transaction whose claim() returned None")
    row.status, row.body, row.about = status, body, about
    scope.session.flush()


def clear_expired(scope: Scope) -> int:
    """Remove keys that are over; says how many."""
    done = scope.session.execute(
        delete(IdempotencyKey).where(
            IdempotencyKey.tenant_id == scope.tenant, IdempotencyKey.expires_at <= scope.now
        )
    )
    assert isinstance(done, CursorResult)
    return done.rowcount


def _row(scope: Scope, key: str, route: str, owner: str, *, lock: bool = False) -> IdempotencyKey | None:
    check_text(key, "the idempotency key", 200)
    query = own(scope, IdempotencyKey).where(
        IdempotencyKey.owner == owner, IdempotencyKey.route == route, IdempotencyKey.key == key
    )
    return scope.session.scalars(query.with_for_update() if lock else query).one_or_none()


def _expired(scope: Scope, row: IdempotencyKey) -> bool:
    return row.expires_at <= scope.now


def _answer(row: IdempotencyKey, digest: str) -> Answer:
    if row.request_digest != digest:
        raise Conflict(
            "This idempotency key was used for another request.", hint="Give each request a key of its own."
        )
    if row.status is None:
        # Only where a transaction claimed and never answered: a mistake of the caller's.
        return _again()
    return Answer(row.status, row.body)


def _again() -> Answer:
    raise Conflict("A request with this idempotency key is being answered.", hint="Ask again later.")
