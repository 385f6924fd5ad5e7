"""Tenants, their tokens, their patients."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import BigInteger, CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from serving.gateway.store.types import ID, SHA256, SHORT, new_id

from .base import Base, Row


class Tenant(Base):
    """Whose rows are kept apart from all others'."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(SHORT, unique=True)
    created_at: Mapped[dt.datetime]


class Token(Row, Base):
    """An API key or bearer token: what is known of it, never the secret itself.

    ``lookup`` is the public half, by which the row is found; ``secret_hash`` the SHA-256 of the other half.
    ``subject`` is the person or app that it speaks for: rotated tokens share it, and face scans belong to it.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint("kind IN ('api_key', 'bearer')", name="kind"),
        CheckConstraint("role IN ('app', 'reviewer', 'admin')", name="role"),
    )

    kind: Mapped[str] = mapped_column(String(16))
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(SHORT)
    subject: Mapped[str] = mapped_column(SHORT)
    lookup: Mapped[str] = mapped_column(String(32), unique=True)
    secret_hash: Mapped[str] = mapped_column(SHA256)
    created_by: Mapped[str] = mapped_column(SHORT)
    expires_at: Mapped[dt.datetime | None]
    revoked_at: Mapped[dt.datetime | None]
    replaced_by: Mapped[str | None] = mapped_column(ID)
    last_used_at: Mapped[dt.datetime | None]


class Patient(Row, Base):
    """A patient (S2)."""

    __tablename__ = "patients"
    __table_args__ = (Index("ix_patients_number", "tenant_id", "number"),)

    number: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    age: Mapped[int | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    medical_history: Mapped[str | None]
    updated_at: Mapped[dt.datetime]


Index("ix_tokens_name", Token.tenant_id, Token.name)
