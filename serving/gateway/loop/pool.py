"""What a batch is chosen from: the entries that wait, with what their models said and saw of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError
from serving.core.selection import Pool, comparable, sides, strategy
from serving.gateway.loop.answers import STATUS, STATUSES, heads_of
from serving.gateway.loop.policy import WEIGHTS
from serving.gateway.loop.reading import verdict_of
from serving.gateway.store.repositories import features, labels, predictions, queue
from serving.gateway.store.repositories.queue import Place
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Label, Prediction, QueueEntry

_PAGE = 500
#: Labelled images that are looked at, the newest ones.
_LABELLED = 5000
Floats = NDArray[np.float32]
Table = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry that waits: each head's classes with their probabilities, and the image's embedding."""

    entry: QueueEntry
    answer: Prediction
    heads: Table
    embedding: Floats | None


def _nothing(_digest: str) -> Floats | None:
    return None


def pool_of(
    scope: Scope,
    task: str,
    *,
    how: str,
    head: str | None = None,
    most: int = 1000,
    learned: Callable[[str], Floats | None] = _nothing,
) -> Pool:
    """The ``most`` urgent entries of a task that wait in no batch, as a strategy (``how``) needs them.

    Embeddings of two bundles can't be compared: where a strategy looks at them, only entries of the bundle
    count that most of them were answered by. The same holds for probabilities of other classes. A slice is
    the weightiest of an entry's reasons. ``head`` names one of several.

    ``learned`` gives embeddings [r, D] of images that a bundle (its digest) learned from, None where they are
    out of reach: they count as labelled, of no told class. All embeddings are made comparable by the mean of
    these, or else by that of what waits and what readers have labelled.

    Raises:
        UsageError: there is no such strategy.
        RequestError: the model has no such head.
    """
    needs = _needs(how)
    rows = _told(scope, _waiting(scope, task, most), embeddings="embeddings" in needs)
    if rows and head is not None:
        rows = _of_head(rows, head)
    bundle = None
    if "embeddings" in needs:
        bundle = _commonest(row.answer.bundle_digest for row in rows)
        rows = [row for row in rows if row.answer.bundle_digest == bundle]
    if "probabilities" in needs:
        form = _commonest(_form(row.heads) for row in rows)
        rows = [row for row in rows if _form(row.heads) == form]
    probabilities = _arrays(rows) if "probabilities" in needs else {}
    known, seen = _labelled(scope, task, rows[0].heads if probabilities else {}, bundle)
    vectors = [row.embedding for row in rows if row.embedding is not None]
    embeddings, labelled = None, None
    if vectors:
        embeddings, labelled = _seen(vectors, seen, learned(bundle) if bundle is not None else None)
        more = len(labelled) - len(seen)
        known = {name: np.pad(classes, (0, more), constant_values=-1) for name, classes in known.items()}
    return Pool(
        ids=tuple(row.entry.id for row in rows),
        probabilities=probabilities or None,
        embeddings=embeddings,
        labelled=labelled if labelled is not None and len(labelled) else None,
        labelled_classes=known if probabilities else None,
        slices=tuple(max(row.entry.reasons, key=lambda name: WEIGHTS.get(name, 0)) for row in rows),
    )


def _seen(waiting: list[Floats], read: list[Floats], sample: Floats | None) -> tuple[Floats, Floats]:
    """What waits [n, D], and what has a label [m + r, D]: what readers said first, then what was learned."""
    pool = np.stack(waiting)
    known = np.stack(read) if read else pool[:0]
    if sample is None or sample.shape[1:] != pool.shape[1:]:
        sample = pool[:0]
    reference = sample if len(sample) else np.concatenate([pool, known])
    return comparable(pool, reference), comparable(np.concatenate([known, sample]), reference)


def _needs(how: str) -> frozenset[str]:
    """What a strategy needs, and the one inside it."""
    part: Any = strategy(how)
    found: frozenset[str] = frozenset()
    while part is not None:
        found, part = found | part.needs, getattr(part, "inner", None)
    return found


def _waiting(scope: Scope, task: str, most: int) -> list[QueueEntry]:
    """Page by page, since what is in a batch already waits too."""
    found: list[QueueEntry] = []
    place: Place | None = None
    while len(found) < most:
        rows = queue.urgent(scope, task=task, after=place, limit=_PAGE)
        found += [row for row in rows if row.batch_id is None]
        if len(rows) < _PAGE:
            break
        place = Place.of(rows[-1])
    return found[:most]


def _told(scope: Scope, waiting: Sequence[QueueEntry], *, embeddings: bool) -> list[_Row]:
    """What was answered of each; without those that have no embedding, where one is needed."""
    rows = []
    for start in range(0, len(waiting), _PAGE):
        part = waiting[start : start + _PAGE]
        told = predictions.by_ids(scope, [row.prediction_id for row in part])
        seen = features.of(scope, list(told)) if embeddings else {}
        for row in part:
            if (answer := told.get(row.prediction_id)) is None:
                continue
            looks = seen.get(row.prediction_id)
            embedding = looks.features.embedding if looks is not None else None
            if embedding is not None or not embeddings:
                rows.append(_Row(row, answer, _heads(answer), embedding))
    return rows


def _heads(answer: Prediction) -> dict[str, dict[str, float]]:
    """Each head's probabilities by class; an anomaly score's two sides, where it has a threshold."""
    found = answer.answer.get("anomaly")
    if found is None:
        return {
            name: dict(sorted(head["probabilities"].items()))
            for name, head in heads_of(answer.answer).items()
        }
    score, threshold = found.get("score"), found.get("threshold")
    if score is None or not threshold or threshold <= 0:
        return {}
    (both,) = sides(np.array([score], np.float32), float(threshold))
    return {STATUS: dict(zip(STATUSES, both.tolist(), strict=True))}


def _of_head(rows: Sequence[_Row], head: str) -> list[_Row]:
    kept = [
        _Row(row.entry, row.answer, {head: row.heads[head]}, row.embedding)
        for row in rows
        if head in row.heads
    ]
    if not kept:
        named = ", ".join(sorted({name for row in rows for name in row.heads})) or "none"
        raise RequestError(f"The model has no head {head!r}.", hint=f"Its heads: {named}.")
    return kept


def _form(heads: Table) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, tuple(heads[name])) for name in sorted(heads))


def _commonest(values: Iterator[Any]) -> Any:
    """What there is most of; of two alike the first, which is the more urgent. None of nothing."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def _arrays(rows: Sequence[_Row]) -> dict[str, Floats]:
    if not rows:
        return {}
    return {
        name: np.array([list(row.heads[name].values()) for row in rows], np.float32)
        for name in sorted(rows[0].heads)
    }


def _labelled(
    scope: Scope, task: str, heads: Table, bundle: str | None
) -> tuple[dict[str, NDArray[np.int64]], list[Floats]]:
    """The classes of what readers have labelled, by head (-1: none), and with a ``bundle`` its embeddings.

    With a bundle only images that it answered are among them, so that both have the same rows.
    """
    by_image: dict[str, list[Label]] = {}
    for page in _pages(scope, task):
        for row in page:
            by_image.setdefault(row.image_id, []).append(row)
    newest = list(by_image.values())[-_LABELLED:]
    places = {name: {label: place for place, label in enumerate(heads[name])} for name in heads}
    classes: dict[str, list[int]] = {name: [] for name in places}
    vectors: list[Floats] = []
    for start in range(0, len(newest), _PAGE):
        part = newest[start : start + _PAGE]
        ids = [rows[0].prediction_id for rows in part]
        seen = features.of(scope, [key for key in ids if key is not None]) if bundle is not None else {}
        for key, rows in zip(ids, part, strict=True):
            if bundle is not None:
                looks = seen.get(key or "")
                if (
                    looks is None
                    or looks.prediction.bundle_digest != bundle
                    or looks.features.embedding is None
                ):
                    continue
                vectors.append(looks.features.embedding)
            said = {row.head: row.value for row in verdict_of(rows)}
            for name, known in classes.items():
                known.append(places[name].get(said.get(name) or "", -1))
    return {name: np.array(known, np.int64) for name, known in classes.items()}, vectors


def _pages(scope: Scope, task: str) -> Iterator[list[Label]]:
    after = 0
    while rows := labels.listed(scope, task=task, after=after, limit=_PAGE):
        yield rows
        after = rows[-1].number
