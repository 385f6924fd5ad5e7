"""Images, the scans they belong to, and what models said of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, String, true
from sqlalchemy.orm import Mapped, mapped_column

from serving.gateway.store.types import ID, SHA256, SHORT

from .base import Base, Row, Tenanted, refers


class Blob(Tenanted, Base):
    """Bytes that are kept: one row for each content within a tenant. Locked while its bytes come or go."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    bytes: Mapped[int]
    created_at: Mapped[dt.datetime]


class Image(Row, Base):
    """A picture that was sent, or one that we made of it (``derived_from``: an overlay).

    Several may have one content. ``case_key`` is the app's own name of a case, which may come later.
    """

    __tablename__ = "images"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "sha256"], ["blobs.tenant_id", "blobs.sha256"]),
        refers("patient_id", "patients"),
        refers("derived_from", "images"),
        Index("ix_images_sha256", "tenant_id", "sha256"),
        Index("ix_images_patient", "tenant_id", "patient_id"),
        Index("ix_images_case_key", "tenant_id", "case_key"),
        Index("ix_images_derived_from", "tenant_id", "derived_from"),
        CheckConstraint("kind IN ('original', 'overlay')", name="kind"),
    )

    sha256: Mapped[str] = mapped_column(SHA256)
    bytes: Mapped[int]
    media_type: Mapped[str] = mapped_column(String(100))
    width: Mapped[int]
    height: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    system: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(SHORT)
    patient_id: Mapped[str | None] = mapped_column(ID)
    derived_from: Mapped[str | None] = mapped_column(ID)
    case_key: Mapped[str | None] = mapped_column(SHORT)


class Scan(Row, Base):
    """One visit's examination (S2), or a face scan (S3); its state survives a restart.

    ``owner`` is the subject whose token began it. ``result`` is the document that its route answers with.
    """

    __tablename__ = "scans"
    __table_args__ = (
        Index("ix_scans_number", "tenant_id", "number"),
        refers("patient_id", "patients"),
        refers("image_id", "images"),
        refers("overlay_id", "images"),
        Index("ix_scans_patient", "tenant_id", "patient_id"),
        Index("ix_scans_owner", "tenant_id", "owner"),
        Index("ix_scans_image", "tenant_id", "image_id"),
        CheckConstraint("status IN ('pending', 'processing', 'completed', 'failed')", name="status"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    system: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(SHORT)
    patient_id: Mapped[str | None] = mapped_column(ID)
    image_id: Mapped[str | None] = mapped_column(ID)
    overlay_id: Mapped[str | None] = mapped_column(ID)
    status: Mapped[str] = mapped_column(String(16))
    visit_type: Mapped[str | None] = mapped_column(String(40))
    notes: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]
    failure: Mapped[dict[str, Any] | None]
    updated_at: Mapped[dt.datetime]


class Prediction(Row, Base):
    """What one model said of one image, and all that is needed to find out why.

    ``bundle_digest`` names the exact files that answered; ``dataset_digest`` what they had learned from;
    ``code_digest`` the code that trained them, all three as the bundle's card says. ``answer`` is the
    document as it was given, empty heads included. ``role`` is ``champion`` or ``challenger``; ``returned``
    is False for an answer that nobody was given, a challenger's in the shadow.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_number", "tenant_id", "number"),
        refers("image_id", "images"),
        refers("scan_id", "scans"),
        Index("ix_predictions_image", "tenant_id", "image_id"),
        Index("ix_predictions_scan", "tenant_id", "scan_id"),
        Index("ix_predictions_window", "tenant_id", "bundle_digest", "role", "number"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    image_id: Mapped[str] = mapped_column(ID)
    scan_id: Mapped[str | None] = mapped_column(ID)
    task: Mapped[str] = mapped_column(SHORT)
    model_name: Mapped[str] = mapped_column(SHORT)
    model_version: Mapped[str] = mapped_column(SHORT)
    bundle_digest: Mapped[str] = mapped_column(SHORT)
    precision: Mapped[str] = mapped_column(String(40))
    dataset_digest: Mapped[str] = mapped_column(SHORT)
    code_digest: Mapped[str] = mapped_column(SHORT)
    verdict: Mapped[str] = mapped_column(String(40))
    reasons: Mapped[list[str]]
    quality: Mapped[dict[str, Any]]
    answer: Mapped[dict[str, Any]]
    uncertain: Mapped[bool]
    role: Mapped[str] = mapped_column(String(16), default="champion", server_default="champion")
    returned: Mapped[bool] = mapped_column(default=True, server_default=true())
