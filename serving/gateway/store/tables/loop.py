"""What the loop from answers to labels keeps: an answer's features, the queue, batches drawn from it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from serving.gateway.store.types import ID, SHA256, SHORT

from .base import Base, Row, Tenanted, refers


class Features(Tenanted, Base):
    """What an answer's image looked like to its model: for selection and for drift. One row a prediction.

    ``embedding`` is float16, little-endian, None of a model that has none; ``colour`` are channel means and
    deviations as the bundle's reference has them; ``unusual`` is the share of usual images that are less
    unusual, 0 to 1.
    """

    __tablename__ = "features"
    __table_args__ = (refers("prediction_id", "predictions"),)

    prediction_id: Mapped[str] = mapped_column(ID, primary_key=True)
    embedding: Mapped[bytes | None] = mapped_column(LargeBinary)
    unusual: Mapped[float | None]
    colour: Mapped[list[Any] | None]
    sharpness: Mapped[float | None]
    exposure: Mapped[float | None]


class Batch(Row, Base):
    """Entries that were chosen for readers, and how: enough to choose the same ones again.

    ``pool_digest`` is over what there was to choose from; ``entries`` are the chosen ids in their order.
    """

    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_number", "tenant_id", "number"),)

    number: Mapped[int] = mapped_column(BigInteger)
    task: Mapped[str] = mapped_column(SHORT)
    head: Mapped[str] = mapped_column(SHORT)
    strategy: Mapped[str] = mapped_column(SHORT)
    seed: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int]
    pool_digest: Mapped[str] = mapped_column(SHA256)
    entries: Mapped[list[str]]
    made_by: Mapped[str] = mapped_column(SHORT)


class QueueEntry(Row, Base):
    """An image that a reader should look at, for one task. One row an image and task, whatever its reasons.

    - ``reasons``: why it is here (``uncertain``, ``several``, ``rejected``, ``unusual``, ``disagreement``,
      ``audit``); ``priority``: the larger, the sooner.
    - ``state``: ``waiting``; ``adjudicate`` where two readers disagree; ``done``; ``skipped``.
    """

    __tablename__ = "queue"
    __table_args__ = (
        UniqueConstraint("tenant_id", "task", "image_id"),
        Index("ix_queue_waiting", "tenant_id", "task", "state", "number"),
        Index("ix_queue_urgent", "tenant_id", "state", "priority", "number"),
        Index("ix_queue_image", "tenant_id", "image_id"),
        Index("ix_queue_prediction", "tenant_id", "prediction_id"),
        Index("ix_queue_batch", "tenant_id", "batch_id"),
        refers("image_id", "images"),
        refers("prediction_id", "predictions"),
        refers("case_id", "cases"),
        ForeignKeyConstraint(["tenant_id", "batch_id"], ["batches.tenant_id", "batches.id"]),
        CheckConstraint("state IN ('waiting', 'adjudicate', 'done', 'skipped')", name="state"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    task: Mapped[str] = mapped_column(SHORT)
    image_id: Mapped[str] = mapped_column(ID)
    prediction_id: Mapped[str] = mapped_column(ID)
    case_id: Mapped[str | None] = mapped_column(ID)
    reasons: Mapped[list[str]]
    priority: Mapped[float]
    state: Mapped[str] = mapped_column(String(16))
    readers_needed: Mapped[int]
    batch_id: Mapped[str | None] = mapped_column(ID)
    updated_at: Mapped[dt.datetime]
