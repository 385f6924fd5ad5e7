"""What the columns hold, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import JSON, DateTime, String
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

# Long enough for a UUID as text; ids are text so that the two databases give the same.
ID = String(36)
SHA256 = String(64)
# Names, keys and other short texts that an index holds: PostgreSQL refuses long ones there.
SHORT = String(200)
# Not PostgreSQL's JSONB: that sorts a document's keys, and a model's classes have an order.
Json = JSON()


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A moment. Goes in with any time zone, comes out in UTC; SQLite, which has none, keeps UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """A moment without a time zone is refused: nobody could say later which one it was."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """In UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def new_id() -> str:
    """A random UUID as text."""
    return str(uuid.uuid4())


def is_id(text: Any) -> bool:
    """Whether ``text`` is a UUID in the form that :func:`new_id` gives, capitals allowed."""
    return as_id(text) is not None


def as_id(text: Any) -> str | None:
    """``text`` as :func:`new_id` would have written it, or None where it is no UUID."""
    if not isinstance(text, str) or len(text) != 36:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def about(kind: str, key: str) -> str:
    """``<kind>:<id>``: how jobs, idempotency keys and the audit log name a row.

    Kinds that an erasure looks for: ``patient``, ``image``, ``scan``, ``case`` (the row's id, not the app's).
    """
    return f"{kind}:{key}"
