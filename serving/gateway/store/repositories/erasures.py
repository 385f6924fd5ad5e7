"""Erasing: what is somebody's, and its removal, in one transaction. ``retention.py`` takes the bytes too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, update

from serving.gateway.store.checks import check_text
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import (
    Case,
    CaseEntry,
    ErasedImage,
    Erasure,
    Features,
    IdempotencyKey,
    Image,
    Job,
    Label,
    Patient,
    Prediction,
    QueueEntry,
    Rejection,
    Row,
    Scan,
    Tenanted,
)
from serving.gateway.store.types import about

from . import copies
from .parts import one, own, page

#: What has an age of its own, and by which moment.
_AGES: dict[str, tuple[type[Row], Any]] = {
    "case": (Case, Case.updated_at),
    "scan": (Scan, Scan.created_at),
    "image": (Image, Image.created_at),
}
AGEING = tuple(_AGES)
#: What an erasure is about that nobody asked for: its rows grew too old.
RETENTION = "retention"
# Under SQLite's and PostgreSQL's bounds on a statement's values.
_PART = 500
_GONE = 410


@dataclass(slots=True)
class Reach:
    """The ids of all rows that an erasure reaches, by kind; made by :func:`reach`."""

    patients: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    scans: set[str] = field(default_factory=set)
    cases: set[str] = field(default_factory=set)

    def size(self) -> int:
        """How many rows are named."""
        return len(self.patients) + len(self.images) + len(self.scans) + len(self.cases)

    def names(self) -> list[str]:
        """All of them as ``<kind>:<id>``."""
        kinds = {"patient": self.patients, "image": self.images, "scan": self.scans, "case": self.cases}
        return [about(kind, key) for kind, keys in kinds.items() for key in sorted(keys)]


def reach(
    scope: Scope,
    *,
    patient_id: str | None = None,
    user: str | None = None,
    case_key: str | None = None,
) -> Reach:
    """Everything of a patient, of a user (S0's ``user_id``, S3's owner), or of a case.

    Follows what belongs together: a scan's image and its overlay, the case of an image, the images of a case.
    The rows are locked, so that nothing is added to them meanwhile.

    Raises:
        NotFound: there is no such patient or case.
    """
    found = Reach()
    if patient_id is not None:
        found.patients = {one(scope, Patient, patient_id, "Patient", lock=True).id}
    if case_key is not None:
        from . import cases

        found.cases = {cases.get(scope, case_key).id}
    if user is not None:
        check_text(user, "user", 200)
        found.images |= _ids(scope, Image, Image.owner == user)
        found.scans |= _ids(scope, Scan, Scan.owner == user)
        found.cases |= _ids(scope, Case, Case.user_id == user)
    return _whole(scope, found)


def aged(scope: Scope, kind: str, before: dt.datetime, *, after: str = "", limit: int = 100) -> list[str]:
    """Ids of a kind's rows (one of ``AGEING``) that are older than a moment, from the one after ``after``."""
    table, moment = _AGES[kind]
    query = select(table.id).where(table.tenant_id == scope.tenant, moment < before, table.id > after)
    return list(scope.session.scalars(query.order_by(table.id).limit(limit)))


def reach_aged(scope: Scope, kind: str, ids: Collection[str], before: dt.datetime) -> Reach:
    """What an erasure of old rows takes: them and what belongs to them, where all of that is old.

    A case that somebody wrote to yesterday keeps its first photograph.
    """
    table, _ = _AGES[kind]
    found = _whole(scope, Reach(**{f"{kind}s": _ids_in(scope, table, table.id, ids)}))
    young = Reach(
        cases=_younger(scope, "case", found.cases, before),
        scans=_younger(scope, "scan", found.scans, before),
        images=_younger(scope, "image", found.images, before),
    )
    stays = _whole(scope, young)
    return Reach(
        images=found.images - stays.images,
        scans=found.scans - stays.scans,
        cases=found.cases - stays.cases,
    )


def remove(scope: Scope, found: Reach, *, name: str, reason: str) -> Erasure:
    """Remove the rows, and write down which contents went. The bytes are still there.

    ``name`` is ``<kind>:<id>`` of what was asked for. Answers kept for idempotency keys become 410 without a
    body, so that a repetition neither tells what was erased nor brings it back.
    """
    images = sorted(found.images)
    contents = _contents(scope, images)
    labelled = _labelled(scope, images)
    told = _values_in(scope, Prediction, Prediction.id, Prediction.image_id, images)
    told |= _values_in(scope, Prediction, Prediction.id, Prediction.scan_id, found.scans)
    left = copies.places(scope, images, found.cases, told)
    # A label of an image that stays may name an answer that goes.
    _unlink(scope, Label, Label.prediction_id, told)
    counts: dict[str, Any] = {
        "labels": _delete(scope, Label, Label.image_id, images)
        + _delete(scope, Label, Label.case_id, found.cases),
        "queue": _delete(scope, QueueEntry, QueueEntry.image_id, images)
        + _delete(scope, QueueEntry, QueueEntry.case_id, found.cases)
        + _delete(scope, QueueEntry, QueueEntry.prediction_id, told),
        # Embeddings tell of an image: they go with it.
        "features": _delete(scope, Features, Features.prediction_id, told),
        "predictions": _delete(scope, Prediction, Prediction.id, told),
        "rejections": _delete(scope, Rejection, Rejection.case_id, found.cases),
        "case_entries": _delete(scope, CaseEntry, CaseEntry.case_id, found.cases),
        "cases": _delete(scope, Case, Case.id, found.cases),
        "scans": _delete(scope, Scan, Scan.id, found.scans),
        "jobs": _delete(scope, Job, Job.about, found.names()),
        "answers": _forget_answers(scope, found.names()),
    }
    # An overlay refers to its image: those first.
    _unlink(scope, Image, Image.derived_from, images)
    counts["images"] = _delete(scope, Image, Image.id, images)
    counts["patients"] = _delete(scope, Patient, Patient.id, found.patients)
    # What was deleted by statements is still in the session's memory.
    scope.session.expire_all()
    copies.pass_on(scope, left)
    row = Erasure(
        tenant_id=scope.tenant,
        about=name,
        reason=reason,
        counts=counts,
        created_at=scope.now,
    )
    scope.session.add(row)
    scope.session.flush()
    for sha256 in sorted(contents):
        scope.session.add(
            ErasedImage(tenant_id=scope.tenant, erasure_id=row.id, sha256=sha256, labelled=sha256 in labelled)
        )
    scope.session.flush()
    scope.audit("erasure.begin", name, erasure=row.id, counts=counts, contents=len(contents))
    return row


def get(scope: Scope, erasure_id: str) -> Erasure:
    """An erasure; ``NotFound`` where there is none."""
    return one(scope, Erasure, erasure_id, "Erasure")


def listed(scope: Scope, *, skip: int = 0, limit: int = 100) -> list[Erasure]:
    """Erasures, oldest first."""
    query = own(scope, Erasure).order_by(Erasure.created_at, Erasure.id)
    return list(scope.session.scalars(page(query, skip, limit)))


def unfinished(scope: Scope) -> list[Erasure]:
    """Erasures whose bytes are not all gone yet, oldest first."""
    query = own(scope, Erasure).where(Erasure.finished_at.is_(None))
    return list(scope.session.scalars(query.order_by(Erasure.created_at, Erasure.id)))


def contents(scope: Scope, erasure_id: str) -> list[ErasedImage]:
    """The contents that an erasure took away."""
    query = own(scope, ErasedImage).where(ErasedImage.erasure_id == get(scope, erasure_id).id)
    return list(scope.session.scalars(query.order_by(ErasedImage.sha256)))


def settle(scope: Scope, erasure_id: str, sha256: str, *, kept: bool) -> None:
    """Say that a content's bytes are gone, or ``kept`` since another image has them."""
    query = own(scope, ErasedImage).where(
        ErasedImage.erasure_id == get(scope, erasure_id).id, ErasedImage.sha256 == sha256
    )
    row = scope.session.scalars(query).one()
    row.settled_at, row.kept = scope.now, kept
    scope.session.flush()


def finish(scope: Scope, erasure_id: str) -> Erasure:
    """Say that an erasure is whole; the audit log has the proof."""
    row = one(scope, Erasure, erasure_id, "Erasure", lock=True)
    if row.finished_at is not None:
        return row
    row.finished_at = scope.now
    gone = contents(scope, erasure_id)
    scope.session.flush()
    scope.audit(
        "erasure.end",
        row.about,
        erasure=row.id,
        counts=row.counts,
        erased=[item.sha256 for item in gone if not item.kept],
        kept_for_others=[item.sha256 for item in gone if item.kept],
    )
    if not gone:
        learn(scope, erasure_id, [])
    return row


def learn(scope: Scope, erasure_id: str, versions: Sequence[dict[str, str]]) -> None:
    """Note which model versions had learned from an erasure's images; the audit log gets it too. Once."""
    row = one(scope, Erasure, erasure_id, "Erasure", lock=True)
    if _known(row):
        return
    row.learned = {"known": True, "versions": list(versions)}
    scope.session.flush()
    scope.audit("erasure.learned", row.about, erasure=row.id, versions=list(versions))


def unasked(scope: Scope, *, limit: int = 100) -> list[Erasure]:
    """Finished erasures of which nobody has said yet which models had learned from them, oldest first."""
    rows = scope.session.scalars(
        own(scope, Erasure)
        .where(Erasure.finished_at.is_not(None))
        .order_by(Erasure.created_at.desc(), Erasure.id)
        .limit(1000)
    )
    return [row for row in rows if not _known(row)][::-1][:limit]


def _known(row: Erasure) -> bool:
    return bool((row.learned or {}).get("known"))


def excluded(scope: Scope) -> list[str]:
    """Contents that no dataset may take: erased since somebody asked, and not sent again since. In order.

    What grew too old is not among them: that ends how long it is kept here, not what was learned from it.
    """
    again = select(Image.id).where(
        Image.tenant_id == ErasedImage.tenant_id, Image.sha256 == ErasedImage.sha256
    )
    query = (
        select(ErasedImage.sha256)
        .join(
            Erasure,
            (Erasure.tenant_id == ErasedImage.tenant_id) & (Erasure.id == ErasedImage.erasure_id),
        )
        .where(
            ErasedImage.tenant_id == scope.tenant,
            Erasure.tenant_id == scope.tenant,
            ~Erasure.about.startswith(about(RETENTION, "")),
            ~again.exists(),
        )
        .distinct()
        .order_by(ErasedImage.sha256)
    )
    return list(scope.session.scalars(query))


def _younger(scope: Scope, kind: str, keys: Iterable[str], before: dt.datetime) -> set[str]:
    table, moment = _AGES[kind]
    found: set[str] = set()
    for part in _parts(keys):
        query = select(table.id).where(table.tenant_id == scope.tenant, table.id.in_(part), moment >= before)
        found.update(scope.session.scalars(query))
    return found


def _whole(scope: Scope, found: Reach) -> Reach:
    """With everything that belongs to it."""
    size = -1
    while size != found.size():
        size = found.size()
        _widen(scope, found)
    return found


def _widen(scope: Scope, found: Reach) -> None:
    found.images |= _ids_in(scope, Image, Image.patient_id, found.patients)
    found.scans |= _ids_in(scope, Scan, Scan.patient_id, found.patients)
    found.cases |= _ids_in(scope, Case, Case.patient_id, found.patients)
    found.images |= _values_in(scope, Scan, Scan.image_id, Scan.id, found.scans)
    found.images |= _values_in(scope, Scan, Scan.overlay_id, Scan.id, found.scans)
    found.images |= _values_in(scope, Case, Case.image_id, Case.id, found.cases)
    keys = _values_in(scope, Case, Case.key, Case.id, found.cases)
    found.images |= _ids_in(scope, Image, Image.case_key, keys)
    found.images |= _ids_in(scope, Image, Image.derived_from, found.images)
    found.images |= _values_in(scope, Image, Image.derived_from, Image.id, found.images)
    found.scans |= _ids_in(scope, Scan, Scan.image_id, found.images)
    found.scans |= _ids_in(scope, Scan, Scan.overlay_id, found.images)
    found.cases |= _ids_in(scope, Case, Case.image_id, found.images)
    keys = _values_in(scope, Image, Image.case_key, Image.id, found.images)
    found.cases |= _ids_in(scope, Case, Case.key, keys)


def _parts(keys: Iterable[str]) -> Iterable[Sequence[str]]:
    every = sorted(keys)
    return (every[at : at + _PART] for at in range(0, len(every), _PART))


def _ids(scope: Scope, table: type[Row], condition: ColumnElement[bool]) -> set[str]:
    query = select(table.id).where(table.tenant_id == scope.tenant, condition).with_for_update()
    return set(scope.session.scalars(query))


def _ids_in(scope: Scope, table: type[Row], column: Any, keys: Iterable[str]) -> set[str]:
    return {key for part in _parts(keys) for key in _ids(scope, table, column.in_(part))}


def _values_in(scope: Scope, table: type[Row], value: Any, column: Any, keys: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for part in _parts(keys):
        query = select(value).where(table.tenant_id == scope.tenant, column.in_(part), value.is_not(None))
        found.update(scope.session.scalars(query))
    return found


def _contents(scope: Scope, images: Sequence[str]) -> set[str]:
    return _values_in(scope, Image, Image.sha256, Image.id, images)


def _labelled(scope: Scope, images: Sequence[str]) -> set[str]:
    labelled = _values_in(scope, Label, Label.image_id, Label.image_id, images)
    return _contents(scope, sorted(labelled))


def _unlink(scope: Scope, table: type[Row], column: Any, keys: Iterable[str]) -> None:
    """Let rows no longer refer to those of the keys."""
    for part in _parts(keys):
        scope.session.execute(
            update(table)
            .where(table.tenant_id == scope.tenant, column.in_(part))
            .values({column: None})
            .execution_options(synchronize_session=False)
        )


def _delete(scope: Scope, table: type[Tenanted], column: Any, keys: Iterable[str]) -> int:
    count = 0
    for part in _parts(keys):
        done = scope.session.execute(
            delete(table)
            .where(table.tenant_id == scope.tenant, column.in_(part))
            .returning(column)
            .execution_options(synchronize_session=False)
        )
        count += len(done.all())
    return count


def _forget_answers(scope: Scope, names: Iterable[str]) -> int:
    count = 0
    for part in _parts(names):
        done = scope.session.execute(
            update(IdempotencyKey)
            .where(
                IdempotencyKey.tenant_id == scope.tenant,
                IdempotencyKey.about.in_(part),
                or_(IdempotencyKey.status != _GONE, IdempotencyKey.status.is_(None)),
            )
            .values(status=_GONE, body=None)
            .returning(IdempotencyKey.key)
            .execution_options(synchronize_session=False)
        )
        count += len(done.all())
    return count
