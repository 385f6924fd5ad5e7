"""What models said, and how an answer is traced to the bundle, the data set and the code behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import aliased

from data.errors import StoreError
from serving.gateway.store.checks import check_text
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Prediction

from . import images, scans
from .parts import MOST, one, own, page


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


def by_ids(scope: Scope, prediction_ids: Sequence[str]) -> dict[str, Prediction]:
    """Predictions by their ids; those that aren't there are left out. At most a thousand at once."""
    query = own(scope, Prediction).where(Prediction.id.in_(prediction_ids[:MOST]))
    return {row.id: row for row in scope.session.scalars(query)}


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


def side_by_side(scope: Scope, task: str, *, limit: int = 1000) -> list[tuple[Prediction, Prediction]]:
    """Champion's and challenger's answers to one image, newest first: those of the newest challenger only."""
    check_text(task, "task")
    ours = (Prediction.tenant_id == scope.tenant, Prediction.task == task)
    newest = scope.session.scalars(
        select(Prediction.bundle_digest)
        .where(*ours, Prediction.role == "challenger")
        .order_by(Prediction.number.desc())
        .limit(1)
    ).first()
    if newest is None:
        return []
    champion = aliased(Prediction)
    query = (
        select(champion, Prediction)
        .join(
            champion,
            (champion.tenant_id == Prediction.tenant_id) & (champion.image_id == Prediction.image_id),
        )
        .where(
            *ours,
            Prediction.role == "challenger",
            Prediction.bundle_digest == newest,
            champion.tenant_id == scope.tenant,
            champion.task == task,
            champion.role == "champion",
            champion.verdict == "gradable",
        )
        .order_by(Prediction.number.desc(), champion.number.desc())
        .limit(min(max(limit, 0), MOST))
    )
    seen: dict[str, tuple[Prediction, Prediction]] = {}
    for first, second in scope.session.execute(query):
        seen.setdefault(second.image_id, (first, second))
    return list(seen.values())
