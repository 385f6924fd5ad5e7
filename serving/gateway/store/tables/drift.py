"""What watching for drift keeps: windows that were judged, and photographs of which nothing else is kept."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from serving.gateway.store.types import SHORT

from .base import Base, Row, Tenanted


class Glance(Row, Base):
    """How sharp and how bright a photograph was that a model was asked about and of which no answer is kept.

    Those that the quality gate refuses, mostly: without them a window would hold the good ones alone. It
    names no image and no person, and goes once its window is over.
    """

    __tablename__ = "glances"
    __table_args__ = (Index("ix_glances_window", "tenant_id", "bundle_digest", "number"),)

    number: Mapped[int] = mapped_column(BigInteger)
    task: Mapped[str] = mapped_column(SHORT)
    model_version: Mapped[str] = mapped_column(SHORT)
    bundle_digest: Mapped[str] = mapped_column(SHORT)
    verdict: Mapped[str] = mapped_column(String(40))
    sharpness: Mapped[float | None]
    exposure: Mapped[float | None]


class DriftWindow(Tenanted, Base):
    """The newest whole window of a bundle's answers (``images``) or of readers' verdicts (``labels``).

    - ``first_number``, ``last_number``: of its rows; the next window begins after the last. 0 where no window
      is whole yet.
    - ``report``: what stands of it, ``DriftReport.to_dict()``.
    - ``running``: the same of the window that is filling, from its first alarm on.
    """

    __tablename__ = "drift_windows"
    __table_args__ = (CheckConstraint("kind IN ('images', 'labels')", name="kind"),)

    bundle_digest: Mapped[str] = mapped_column(SHORT, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    task: Mapped[str] = mapped_column(SHORT)
    first_number: Mapped[int] = mapped_column(BigInteger)
    last_number: Mapped[int] = mapped_column(BigInteger)
    report: Mapped[dict[str, Any] | None]
    running: Mapped[dict[str, Any] | None]
    judged_at: Mapped[dt.datetime]
