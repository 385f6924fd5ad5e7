"""Images: rows that are written only when their bytes are safe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import func, select

from data.errors import Conflict
from serving.gateway.blobs.base import Kept
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Blob, Image

from .parts import insert_new, one, own, page


def add(
    scope: Scope,
    kept: Kept,
    *,
    media_type: str,
    width: int,
    height: int,
    system: str,
    owner: str,
    kind: Literal["original", "overlay"] = "original",
    patient_id: str | None = None,
    derived_from: str | None = None,
    case_key: str | None = None,
    image_id: str | None = None,
) -> Image:
    """The row of an image whose bytes an image store has kept.

    The content's row is locked and the bytes looked for once more: a clean-up that ran since then may have
    taken them, and waits from here on until this transaction ends.

    Raises:
        NotFound: the patient or the image that it derives from isn't there.
        StoreError: the bytes were gone and could not be kept again.
    """
    from . import patients

    if kept.tenant != scope.tenant:
        raise ValueError("these bytes were kept for another tenant")
    patient = patients.get(scope, patient_id).id if patient_id is not None else None
    origin = get(scope, derived_from).id if derived_from is not None else None
    _hold(scope, kept.sha256, kept.bytes)
    kept.ensure()
    row = Image(
        tenant_id=scope.tenant,
        sha256=kept.sha256,
        bytes=kept.bytes,
        media_type=media_type,
        width=width,
        height=height,
        kind=kind,
        system=system,
        owner=owner,
        patient_id=patient,
        derived_from=origin,
        case_key=case_key,
        created_at=scope.now,
    )
    if image_id is not None:
        row.id = image_id
    scope.session.add(row)
    scope.session.flush()
    return row


def get(scope: Scope, image_id: str) -> Image:
    """An image's row; ``NotFound`` where there is none."""
    return one(scope, Image, image_id, "Image")


def by_id(scope: Scope, image_ids: Iterable[str]) -> dict[str, Image]:
    """The images of these ids, by id; what isn't there is left out. At most a thousand at once."""
    asked = sorted(set(image_ids))[:1000]
    return {row.id: row for row in scope.session.scalars(own(scope, Image).where(Image.id.in_(asked)))}


def belong(scope: Scope, image_id: str, patient_id: str) -> Image:
    """Note whose image it is, so that an erasure of theirs finds it.

    Raises:
        NotFound: there is no such image or patient.
        Conflict: it is another patient's.
    """
    from . import patients

    patient = patients.get(scope, patient_id)
    row = one(scope, Image, image_id, "Image", lock=True)
    if row.patient_id not in (None, patient.id):
        raise Conflict("This image is another patient's.")
    row.patient_id = patient.id
    scope.session.flush()
    return row


def of_case(scope: Scope, case_key: str) -> list[Image]:
    """The images that were sent under an app's own case id."""
    query = own(scope, Image).where(Image.case_key == case_key).order_by(Image.created_at, Image.id)
    return list(scope.session.scalars(page(query, 0, 1000)))


def newest_of_case(scope: Scope, case_key: str) -> Image | None:
    """The image that was sent last under an app's own case id, if any was."""
    query = own(scope, Image).where(Image.case_key == case_key, Image.kind == "original")
    return scope.session.scalars(query.order_by(Image.created_at.desc(), Image.id).limit(1)).one_or_none()


def with_content(scope: Scope, sha256: str) -> list[Image]:
    """The images with that content."""
    query = own(scope, Image).where(Image.sha256 == sha256).order_by(Image.created_at, Image.id)
    return list(scope.session.scalars(page(query, 0, 1000)))


def known(scope: Scope, contents: Sequence[str]) -> set[str]:
    """Those of the contents that an image refers to. At most a thousand at once."""
    query = select(Image.sha256).where(Image.tenant_id == scope.tenant, Image.sha256.in_(contents[:1000]))
    return set(scope.session.scalars(query.distinct()))


def unreferenced(scope: Scope, *, limit: int = 1000) -> list[str]:
    """Contents that are kept though no image refers to them any more: a clean-up's work."""
    refers = select(Image.id).where(Image.tenant_id == Blob.tenant_id, Image.sha256 == Blob.sha256)
    query = (
        select(Blob.sha256)
        .where(Blob.tenant_id == scope.tenant, ~refers.exists())
        .order_by(Blob.sha256)
        .limit(limit)
    )
    return list(scope.session.scalars(query))


def lock_content(scope: Scope, sha256: str, size: int = 0) -> int:
    """Hold a content against everyone else until the transaction ends.

    Returns:
        How many images refer to it.
    """
    _hold(scope, sha256, size)
    count = select(func.count()).select_from(Image)
    return scope.session.scalar(count.where(Image.tenant_id == scope.tenant, Image.sha256 == sha256)) or 0


def forget_content(scope: Scope, sha256: str) -> None:
    """Remove a content's row, held by :func:`lock_content` and referred to by nobody."""
    row = scope.session.scalars(own(scope, Blob).where(Blob.sha256 == sha256)).one_or_none()
    if row is not None:
        scope.session.delete(row)
        scope.session.flush()


def _hold(scope: Scope, sha256: str, size: int) -> None:
    """Lock a content's row, made where it isn't there."""
    query = select(Blob.sha256).where(Blob.tenant_id == scope.tenant, Blob.sha256 == sha256)
    for _ in range(10):
        if insert_new(scope, Blob, sha256=sha256, bytes=size, created_at=scope.now):
            return  # a row that is ours alone until the transaction ends
        # Between the two, a clean-up may have removed the row that was in the first one's way: then again.
        if scope.session.execute(query.with_for_update()).first() is not None:
            return
    raise Conflict("This image is being removed and sent at once.", hint="Send it again later.")
