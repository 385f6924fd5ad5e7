"""Images: rows that are written only when their bytes are safe.

A content has a row of its own (``blobs``), whose lock uploads and clean-ups share. A clean-up writes there
that it takes the bytes (:data:`_GOING`) before it does, and then that they are gone (:data:`_GONE`), which
stays for a day. An upload that kept its bytes before sees by it that they may be gone, without asking the
image store in its transaction, and looks for them after it. Whoever sends the content again, the note stays
that day: another upload may have kept its bytes before the clean-up too.

Looking for bytes and taking them are slow, so no transaction is open meanwhile: who does either is
:func:`~serving.gateway.store.contents.alone_with` the content instead. So an upload that looks after its
image was erased finds no row, and keeps nothing; one that looks before is waited for by the erasure, which
then takes what it kept.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from sqlalchemy import delete, func, select, update

from data.errors import Conflict
from serving.gateway.blobs.base import Kept
from serving.gateway.store.contents import alone_with
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Blob, Image

from .parts import insert_new, one, own, page

if TYPE_CHECKING:
    from serving.gateway.store.engine import Store

#: The size of a content whose bytes a clean-up took. An older program reads it as a content without images.
_GONE = -1
#: The same, of one whose bytes are being taken, or were when a crash came: the next sweep goes on with it.
_GOING = -2
_NOTES = (_GONE, _GOING)
#: No upload takes longer between its bytes and its row.
_NOTED = dt.timedelta(days=1)


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

    The content's row is locked: a clean-up waits from here on until this transaction ends. Where one had
    removed this content lately, the bytes are looked for once more after the transaction, before the block of
    :meth:`~serving.gateway.store.engine.Store.write` ends, and kept again where they are gone and an image
    still has them. That raises ``StoreError`` where the image store is away.

    Raises:
        NotFound: the patient or the image that it derives from isn't there.
    """
    from . import patients

    if kept.tenant != scope.tenant:
        raise ValueError("these bytes were kept for another tenant")
    patient = patients.get(scope, patient_id).id if patient_id is not None else None
    origin = get(scope, derived_from).id if derived_from is not None else None
    if _hold(scope, kept.sha256, kept.bytes) in _NOTES:
        scope.afterwards.append(partial(_look_again, kept))
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


def get(scope: Scope, image_id: str, *, lock: bool = False) -> Image:
    """An image's row; ``NotFound`` where there is none."""
    return one(scope, Image, image_id, "Image", lock=lock)


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
        .where(Blob.tenant_id == scope.tenant, Blob.bytes != _GONE, ~refers.exists())
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


def let_go(scope: Scope, sha256: str) -> None:
    """Note that a content's bytes are being taken. :func:`lock_content` holds it, and nobody refers to it."""
    _note(scope, sha256, _GOING)


def forget_content(scope: Scope, sha256: str) -> None:
    """Note that the bytes are gone which :func:`let_go` named."""
    _hold(scope, sha256, _GONE)
    _note(scope, sha256, _GONE)


def clear_notes(scope: Scope) -> None:
    """Of the notes that a content is gone, made more than a day ago, remove those that no image refers to.

    The others become contents again.
    """
    old = (
        Blob.tenant_id == scope.tenant,
        Blob.bytes.in_(_NOTES),
        Blob.created_at < scope.now - _NOTED,
    )
    theirs = (Image.tenant_id == scope.tenant, Image.sha256 == Blob.sha256)
    size = select(func.max(Image.bytes)).where(*theirs).scalar_subquery()
    refers = select(Image.id).where(*theirs).exists()
    scope.session.execute(update(Blob).where(*old, refers).values(bytes=size))
    scope.session.execute(delete(Blob).where(*old, Blob.bytes == _GONE, ~refers))


def _look_again(kept: Kept, store: Store) -> None:
    """Keep bytes again that a clean-up took, where an image still has them."""
    with alone_with(store, kept.tenant, kept.sha256):
        with store.read(kept.tenant) as scope:
            there = kept.sha256 in known(scope, [kept.sha256])
        if there:
            kept.ensure()


def _note(scope: Scope, sha256: str, what: int) -> None:
    ours = (Blob.tenant_id == scope.tenant, Blob.sha256 == sha256)
    scope.session.execute(update(Blob).where(*ours).values(bytes=what, created_at=scope.now))


def _hold(scope: Scope, sha256: str, size: int) -> int:
    """Lock a content's row, made where it isn't there. Gives its size, or a note that it has none."""
    query = select(Blob.bytes).where(Blob.tenant_id == scope.tenant, Blob.sha256 == sha256)
    for _ in range(10):
        if insert_new(scope, Blob, sha256=sha256, bytes=size, created_at=scope.now):
            return size  # a row that is ours alone until the transaction ends
        # Between the two, a clean-up may have removed the row that was in the first one's way: then again.
        found = scope.session.scalars(query.with_for_update()).one_or_none()
        if found is not None:
            return found
    raise Conflict("This image is being removed and sent at once.", hint="Send it again later.")
