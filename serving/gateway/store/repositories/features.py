"""What answers' images looked like to their models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import Select, select

from data.errors import Conflict
from serving.features.columns import Features as Looks
from serving.gateway.store.checks import check_text
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Features, Prediction, QueueEntry

from . import predictions
from .parts import MOST, insert_new

_STORED = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer with its features; ``audited`` where a reader was asked by chance and not for a doubt."""

    prediction: Prediction
    features: Looks
    audited: bool = False


def add(scope: Scope, prediction_id: str, looks: Looks) -> None:
    """Keep the features of a prediction. ``Conflict`` where it has some."""
    embedding, colour = looks.embedding, looks.colour
    added = insert_new(
        scope,
        Features,
        prediction_id=predictions.get(scope, prediction_id).id,
        embedding=None if embedding is None else embedding.astype(_STORED).tobytes(),
        unusual=looks.unusual,
        colour=None if colour is None else [float(value) for value in colour],
        sharpness=looks.sharpness,
        exposure=looks.exposure,
    )
    if not added:
        raise Conflict("This prediction has its features already.")


def of(scope: Scope, prediction_ids: list[str]) -> dict[str, Seen]:
    """The features of predictions, by their ids; those without are left out. At most a thousand at once."""
    query = _query(scope).where(Prediction.id.in_(prediction_ids[:MOST]))
    return {row.id: _seen(row, features) for row, features in scope.session.execute(query)}


def recent(scope: Scope, task: str, *, bundle_digest: str | None = None, limit: int = 1000) -> list[Seen]:
    """The newest answers of a task that have features, newest first: a window for drift."""
    query = _query(scope).where(Prediction.task == check_text(task, "task"), Prediction.role == "champion")
    if bundle_digest is not None:
        query = query.where(Prediction.bundle_digest == bundle_digest)
    query = query.order_by(Prediction.number.desc()).limit(min(max(limit, 0), MOST))
    found = [_seen(row, features) for row, features in scope.session.execute(query)]
    entries = select(QueueEntry.image_id, QueueEntry.reasons).where(
        QueueEntry.tenant_id == scope.tenant,
        QueueEntry.task == task,
        QueueEntry.image_id.in_([one.prediction.image_id for one in found]),
    )
    audited = {image for image, reasons in scope.session.execute(entries) if "audit" in reasons}
    return [replace(one, audited=one.prediction.image_id in audited) for one in found]


def _query(scope: Scope) -> Select[Prediction, Features]:
    return (
        select(Prediction, Features)
        .join(
            Features,
            (Features.tenant_id == Prediction.tenant_id) & (Features.prediction_id == Prediction.id),
        )
        .where(Prediction.tenant_id == scope.tenant, Features.tenant_id == scope.tenant)
    )


def _seen(row: Prediction, kept: Features) -> Seen:
    raw = kept.embedding
    looks = Looks(
        None if raw is None else np.frombuffer(raw, _STORED).astype(np.float32),
        kept.unusual,
        None if kept.colour is None else np.array(kept.colour, np.float32),
        kept.sharpness,
        kept.exposure,
    )
    return Seen(row, looks)
