"""What answers' images looked like to their models."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, select

from data.errors import Conflict
from serving.features.columns import Features as Looks
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Features, Prediction

from . import predictions
from .parts import MOST, STORED, insert_new, looks_of


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer with its features."""

    prediction: Prediction
    features: Looks


def add(scope: Scope, prediction_id: str, looks: Looks) -> None:
    """Keep the features of a prediction. ``Conflict`` where it has some."""
    embedding, colour = looks.embedding, looks.colour
    added = insert_new(
        scope,
        Features,
        prediction_id=predictions.get(scope, prediction_id).id,
        embedding=None if embedding is None else embedding.astype(STORED).tobytes(),
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
    return {row.id: Seen(row, looks_of(features)) for row, features in scope.session.execute(query)}


def _query(scope: Scope) -> Select[Prediction, Features]:
    return (
        select(Prediction, Features)
        .join(
            Features,
            (Features.tenant_id == Prediction.tenant_id) & (Features.prediction_id == Prediction.id),
        )
        .where(Prediction.tenant_id == scope.tenant, Features.tenant_id == scope.tenant)
    )
