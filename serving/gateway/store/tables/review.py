"""Cases, their rejections, and the labels that people give."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from serving.gateway.store.types import ID, SHORT

from .base import Base, Row, refers


class Case(Row, Base):
    """An image with its answer, as an app logged it (S0). One row for each ``key``, the app's own case id.

    The columns hold what was said last; :class:`CaseEntry` has every word in order.
    """

    __tablename__ = "cases"
    __table_args__ = (
        UniqueConstraint("tenant_id", "key"),
        Index("ix_cases_number", "tenant_id", "number"),
        refers("image_id", "images"),
        refers("patient_id", "patients"),
        Index("ix_cases_image", "tenant_id", "image_id"),
        Index("ix_cases_patient", "tenant_id", "patient_id"),
        Index("ix_cases_user", "tenant_id", "user_id"),
        Index("ix_cases_status", "tenant_id", "status"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(SHORT)
    image_id: Mapped[str | None] = mapped_column(ID)
    patient_id: Mapped[str | None] = mapped_column(ID)
    task: Mapped[str | None] = mapped_column(SHORT)
    status: Mapped[str | None] = mapped_column(SHORT)
    user_id: Mapped[str | None] = mapped_column(SHORT)
    user_role: Mapped[str | None] = mapped_column(SHORT)
    rejected: Mapped[bool]
    payload: Mapped[dict[str, Any]]
    updated_at: Mapped[dt.datetime]


class CaseEntry(Row, Base):
    """What an app sent about a case, whole, as it was sent."""

    __tablename__ = "case_entries"
    __table_args__ = (
        refers("case_id", "cases"),
        Index("ix_case_entries_case", "tenant_id", "case_id", "number"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    case_id: Mapped[str] = mapped_column(ID)
    payload: Mapped[dict[str, Any]]
    by: Mapped[str] = mapped_column(SHORT)


class Rejection(Row, Base):
    """A user who said that an answer is wrong, and why."""

    __tablename__ = "rejections"
    __table_args__ = (
        refers("case_id", "cases"),
        Index("ix_rejections_case", "tenant_id", "case_id", "number"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    case_id: Mapped[str] = mapped_column(ID)
    reason: Mapped[str | None]
    notes: Mapped[str | None]
    predictions: Mapped[list[Any]]
    payload: Mapped[dict[str, Any]]
    by: Mapped[str] = mapped_column(SHORT)


class Label(Row, Base):
    """What a reader says of an image, for one head: a class, or that it can't be graded and why.

    A label that was taken back stays, with ``withdrawn_at``.
    """

    __tablename__ = "labels"
    __table_args__ = (
        Index("ix_labels_number", "tenant_id", "number"),
        refers("image_id", "images"),
        refers("case_id", "cases"),
        refers("prediction_id", "predictions"),
        Index("ix_labels_image", "tenant_id", "image_id"),
        Index("ix_labels_case", "tenant_id", "case_id"),
        Index("ix_labels_task", "tenant_id", "task", "head"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    image_id: Mapped[str] = mapped_column(ID)
    case_id: Mapped[str | None] = mapped_column(ID)
    prediction_id: Mapped[str | None] = mapped_column(ID)
    task: Mapped[str] = mapped_column(SHORT)
    head: Mapped[str] = mapped_column(SHORT)
    value: Mapped[str | None] = mapped_column(SHORT)
    cannot_grade: Mapped[str | None]
    comment: Mapped[str | None]
    reader: Mapped[str] = mapped_column(SHORT)
    source: Mapped[str] = mapped_column(String(40))
    withdrawn_at: Mapped[dt.datetime | None]
