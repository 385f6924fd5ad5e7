"""Jobs, idempotency keys, the audit log, and what was erased."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from serving.gateway.store.types import ID, SHA256, SHORT

from .base import Base, Row, Tenanted, refers


class Job(Row, Base):
    """Work that goes on after its request was answered. The queue runs it; this row says how far it is."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status", "tenant_id", "status"),
        Index("ix_jobs_about", "tenant_id", "about"),
        CheckConstraint("status IN ('queued', 'running', 'done', 'failed')", name="status"),
    )

    kind: Mapped[str] = mapped_column(SHORT)
    about: Mapped[str] = mapped_column(SHORT)
    status: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    attempts: Mapped[int]
    error: Mapped[str | None]
    lease_until: Mapped[dt.datetime | None]
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class IdempotencyKey(Tenanted, Base):
    """A key that a client gave to a request, and the answer that every repetition gets.

    ``owner`` is the subject: another one's equal key is another key. ``about`` names what the answer tells
    of, as ``patient:<id>``, so that an erasure finds it.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index("ix_idempotency_keys_about", "tenant_id", "about"),
        Index("ix_idempotency_keys_expires_at", "tenant_id", "expires_at"),
    )

    owner: Mapped[str] = mapped_column(SHORT, primary_key=True)
    route: Mapped[str] = mapped_column(SHORT, primary_key=True)
    key: Mapped[str] = mapped_column(SHORT, primary_key=True)
    request_digest: Mapped[str] = mapped_column(SHORT)
    status: Mapped[int | None]
    body: Mapped[dict[str, Any] | None]
    about: Mapped[str | None] = mapped_column(SHORT)
    created_at: Mapped[dt.datetime]
    expires_at: Mapped[dt.datetime]


class AuditHead(Tenanted, Base):
    """Where a tenant's audit log ends. Locked while an entry is added."""

    __tablename__ = "audit_heads"

    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(SHA256)


class AuditEntry(Tenanted, Base):
    """Who did what, when: each entry's hash covers the one before. Triggers refuse changes and removals.

    ``data`` is canonical JSON as text: a database's own JSON may write a number in another way.
    """

    __tablename__ = "audit_log"

    # Numbered by us, not by the database: the number is a part of what is hashed.
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[dt.datetime]
    actor: Mapped[str] = mapped_column(SHORT)
    action: Mapped[str] = mapped_column(SHORT)
    about: Mapped[str] = mapped_column(SHORT)
    data: Mapped[str]
    prev: Mapped[str] = mapped_column(SHA256)
    hash: Mapped[str] = mapped_column(SHA256)


class Erasure(Row, Base):
    """A deletion of somebody's data: begun with the rows, finished when their bytes are gone too.

    ``learned`` names the model versions that had learned from them, or says that nobody could tell.
    """

    __tablename__ = "erasures"
    __table_args__ = (Index("ix_erasures_about", "tenant_id", "about"),)

    about: Mapped[str] = mapped_column(SHORT)
    reason: Mapped[str]
    counts: Mapped[dict[str, Any]]
    finished_at: Mapped[dt.datetime | None]
    learned: Mapped[dict[str, Any] | None]


class ErasedImage(Tenanted, Base):
    """A content whose image an erasure took away. ``settled_at``: when its bytes went, or were found to be
    another image's too. Datasets to come leave it out, unless an image with that content is there.
    """

    __tablename__ = "erased_images"
    __table_args__ = (refers("erasure_id", "erasures"),)

    erasure_id: Mapped[str] = mapped_column(ID, primary_key=True)
    sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    labelled: Mapped[bool]
    settled_at: Mapped[dt.datetime | None]
    kept: Mapped[bool | None]
