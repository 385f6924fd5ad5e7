"""What models said, and how an answer is traced to the bundle, the data set and the code behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data.errors import StoreError
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Prediction

from . import images, scans
from .parts import one, own, page


@dataclass(frozen=True, slots=True)
class Origin:
    """Which model answered, to the file: as its bundle's card says.

    An answer of which this can't be said in full is not recorded, so that every recorded one can be traced.
    """

    task: str
    model_name: str
    model_version: str
    bundle_digest: str
    precision: str
    dataset_digest: str
    code_digest: str


def add(
    scope: Scope,
    origin: Origin,
    *,
    image_id: str,
    verdict: str,
    answer: dict[str, Any],
    scan_id: str | None = None,
    reasons: tuple[str, ...] | list[str] = (),
    quality: dict[str, Any] | None = None,
    uncertain: bool = False,
    role: str = "champion",
    returned: bool = True,
) -> Prediction:
    """A prediction of an image, and of the scan that it was made for.

    ``role`` and ``returned`` are as the table says: a challenger's answer in the shadow was given to nobody.

    Raises:
        NotFound: no such image or scan.
        StoreError: the origin is not told in full.
    """
    for name in Origin.__slots__:
        if not getattr(origin, name):
            raise StoreError(
                f"A prediction without {name} can't be traced, so it is not kept.",
                hint="The predictor's metadata has to say it: serve a bundle whose card is complete.",
            )
    row = Prediction(
        tenant_id=scope.tenant,
        number=scope.number(),
        image_id=images.get(scope, image_id).id,
        scan_id=scans.get(scope, scan_id).id if scan_id is not None else None,
        task=origin.task,
        model_name=origin.model_name,
        model_version=origin.model_version,
        bundle_digest=origin.bundle_digest,
        precision=origin.precision,
        dataset_digest=origin.dataset_digest,
        code_digest=origin.code_digest,
        verdict=verdict,
        reasons=list(reasons),
        quality=quality or {},
        answer=answer,
        uncertain=uncertain,
        role=role,
        returned=returned,
        created_at=scope.now,
    )
    scope.session.add(row)
    scope.session.flush()
    return row


def get(scope: Scope, prediction_id: str) -> Prediction:
    """A prediction; ``NotFound`` where there is none."""
    return one(scope, Prediction, prediction_id, "Prediction")


def listed(
    scope: Scope,
    *,
    image_id: str | None = None,
    scan_id: str | None = None,
    bundle_digest: str | None = None,
    skip: int = 0,
    limit: int = 100,
) -> list[Prediction]:
    """Predictions, newest first, of an image, a scan or a bundle."""
    query = own(scope, Prediction)
    if image_id is not None:
        query = query.where(Prediction.image_id == images.get(scope, image_id).id)
    if scan_id is not None:
        query = query.where(Prediction.scan_id == scans.get(scope, scan_id).id)
    if bundle_digest is not None:
        query = query.where(Prediction.bundle_digest == bundle_digest)
    query = query.order_by(Prediction.number.desc(), Prediction.id)
    return list(scope.session.scalars(page(query, skip, limit)))


def trace(scope: Scope, prediction_id: str) -> dict[str, Any]:
    """Everything behind one answer: image, bundle, data set, code, verdict and the answer itself."""
    row = get(scope, prediction_id)
    image = images.get(scope, row.image_id)
    return {
        "prediction_id": row.id,
        "created_at": row.created_at.isoformat(),
        "image": {"id": image.id, "sha256": image.sha256, "media_type": image.media_type},
        "model": {
            "task": row.task,
            "name": row.model_name,
            "version": row.model_version,
            "precision": row.precision,
            "bundle_digest": row.bundle_digest,
        },
        "dataset_digest": row.dataset_digest,
        "code_digest": row.code_digest,
        "quality": {"verdict": row.verdict, "reasons": row.reasons, "scores": row.quality},
        "answer": row.answer,
    }
