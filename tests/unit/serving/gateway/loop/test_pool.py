"""What a batch is chosen from: whatever waits, of several models, in batches or not, labelled or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.errors import RequestError, UsageError
from serving.core.selection import select
from serving.features.columns import Features as Looks
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.loop import pool as module
from serving.gateway.loop.pool import pool_of
from serving.gateway.loop.reading import Said, record
from serving.gateway.store import Store
from serving.gateway.store.repositories import features, predictions, queue
from tests.gateway_rows import ORIGIN, image_of

NEWER = replace(ORIGIN, model_version="4", bundle_digest="sha256:" + "e" * 64)


def heads_of(**p: float) -> dict[str, Any]:
    return {"grade": {"label": max(p, key=lambda name: p[name]), "probabilities": p}}


class Waiting:
    """Entries of a tenant, one after the other."""

    def __init__(self, store: Store, blobs: BlobStore, tenant: str) -> None:
        self.store, self.blobs, self.tenant, self.count = store, blobs, tenant, 0

    def add(
        self,
        answer: dict[str, Any],
        *,
        size: int = 0,
        origin: Any = ORIGIN,
        reasons: tuple[str, ...] = ("uncertain",),
        vector: list[float] | None = None,
    ) -> str:
        self.count += 1
        kept = keep(self.blobs, self.tenant, f"image {self.count}".encode(), "image/png")
        with self.store.write(self.tenant, "test") as scope:
            image = image_of(scope, kept)
            said = predictions.add(scope, origin, image_id=image.id, verdict="gradable", answer=answer)
            if size or vector:
                drawn = np.random.default_rng(self.count).normal(size=size) if size else vector
                looks = Looks(np.asarray(drawn, np.float32), 0.5, np.ones(6, np.float32), 1.0, 0.0)
                features.add(scope, said.id, looks)
            entry = queue.enter(
                scope, task="dr_grading", image_id=image.id, prediction_id=said.id,
                reasons=list(reasons), priority=100.0 - self.count,
            )  # fmt: skip
            return entry.id

    def pool(self, how: str, **options: Any) -> Any:
        with self.store.read(self.tenant) as scope:
            return pool_of(scope, "dr_grading", how=how, **options)

    def say(self, entry: str, value: str) -> None:
        with self.store.write(self.tenant, "test") as scope:
            record(scope, entry, reader="ada", said={"grade": Said(value)})

    def batch(self, *entries: str) -> None:
        with self.store.write(self.tenant, "test") as scope:
            queue.add_batch(
                scope, task="dr_grading", head="", strategy="random", seed=0, pool_digest="0" * 64,
                entries=entries, made_by="ada",
            )  # fmt: skip


@pytest.fixture
def waiting(store: Store, blobs: BlobStore, tenant: str) -> Waiting:
    return Waiting(store, blobs, tenant)


def test_answers_of_two_models_are_not_mixed(waiting: Waiting) -> None:
    # After a promotion: the newer model has other classes, and embeddings of another length.
    older = [waiting.add({"heads": heads_of(mild=0.5, severe=0.5)}, size=4) for _ in range(3)]
    newer = [
        waiting.add({"heads": heads_of(mild=0.5, none=0.2, severe=0.3)}, size=8, origin=NEWER)
        for _ in range(2)
    ]
    blind = waiting.add({"heads": heads_of(mild=0.9, severe=0.1)})
    assert set(waiting.pool("random").ids) == {*older, *newer, blind}
    # An image without an embedding is left out only where embeddings are looked at.
    assert set(waiting.pool("margin").ids) == {*older, blind}
    for how in ("k_center", "badge", "class_balanced(cluster_margin)"):
        pool = waiting.pool(how)
        assert set(pool.ids) == set(older)
        assert set(select(pool, how, 2, 0).ids) <= set(older)


def test_what_is_in_batches_does_not_hide_what_is_in_none(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    entries = [waiting.add({"heads": heads_of(mild=0.5, severe=0.5)}) for _ in range(7)]
    waiting.batch(*entries[:5])
    assert list(waiting.pool("margin", most=2).ids) == entries[5:]


def test_classes_that_were_labelled_seldom_have_their_turn(waiting: Waiting) -> None:
    read = [waiting.add({"heads": heads_of(mild=0.6, severe=0.4)}, size=4) for _ in range(3)]
    for entry in read[:2]:
        waiting.say(entry, "mild")
    with waiting.store.write(waiting.tenant, "test") as scope:
        record(scope, read[2], reader="ada", said={"grade": Said(cannot_grade="blurred")})
    other = waiting.add({"heads": heads_of(mild=0.6, severe=0.4)}, size=4, origin=NEWER)
    waiting.say(other, "severe")
    common = waiting.add({"heads": heads_of(mild=0.9, severe=0.1)}, size=4)
    rare = waiting.add({"heads": heads_of(mild=0.7, severe=0.3)}, size=4)
    pool = waiting.pool("class_balanced(margin)")
    assert sorted(pool.labelled_classes["grade"].tolist()) == [-1, 0, 0, 1]
    assert select(pool, "class_balanced(margin)", 1, 0).ids == (rare,)
    # With embeddings only what the same bundle has answered is known.
    pool = waiting.pool("class_balanced(k_center)")
    assert set(pool.ids) == {common, rare}
    assert sorted(pool.labelled_classes["grade"].tolist()) == [-1, 0, 0]
    assert pool.labelled.shape == (3, 4)


def test_the_direction_of_an_embedding_counts_and_not_its_length(waiting: Waiting) -> None:
    said = {"heads": heads_of(mild=0.5, severe=0.5)}
    read = waiting.add(said, vector=[1.0, 0.0, 0.1])
    waiting.say(read, "mild")
    waiting.add(said, vector=[50.0, 0.0, 5.0])  # the same again, only more of it
    other = waiting.add(said, vector=[0.5, 0.5, 0.1])
    assert select(waiting.pool("k_center"), "k_center", 1, 0).ids == (other,)


def test_what_the_model_learned_from_counts_as_labelled(waiting: Waiting) -> None:
    said = {"heads": heads_of(mild=0.5, severe=0.5)}
    alike = waiting.add(said, vector=[0.0, 1.0, 0.0])
    read = waiting.add(said, vector=[1.0, 0.0, 0.0])
    new = waiting.add(said, vector=[0.6, 0.6, 0.3])
    waiting.say(read, "mild")
    asked = list[str]()

    def learned(digest: str) -> Any:
        asked.append(digest)
        return np.array([[0.0, 2.0, 0.1], [0.1, 3.0, 0.0]], np.float32)

    assert select(waiting.pool("k_center"), "k_center", 1, 0).ids == (alike,)
    pool = waiting.pool("class_balanced(k_center)", learned=learned)
    assert asked == [ORIGIN.bundle_digest]
    assert pool.labelled.shape == (3, 3)
    assert pool.labelled_classes["grade"].tolist() == [0, -1, -1]
    assert select(pool, "k_center", 1, 0).ids == (new,)
    # Embeddings of another length are another model's.
    pool = waiting.pool("k_center", learned=lambda _: np.ones((2, 5), np.float32))
    assert pool.labelled.shape == (1, 3)


def test_slices_are_the_weightiest_reasons(waiting: Waiting) -> None:
    said = {"heads": heads_of(mild=0.5, severe=0.5)}
    doubtful = [waiting.add(said) for _ in range(6)]
    rejected = waiting.add(said, reasons=("audit", "rejected"))
    chosen = select(waiting.pool("slice_balanced(random)"), "slice_balanced(random)", 2, 0)
    assert rejected in chosen.ids
    assert len({*chosen.ids} & {*doubtful}) == 1


def test_an_anomaly_score_near_its_threshold_is_the_doubtful_one(waiting: Waiting) -> None:
    entries = [
        waiting.add({"anomaly": {"score": score, "threshold": 2.0, "label": "ok"}, "heads": {}})
        for score in (0.3, 1.9, 9.0)
    ]
    pool = waiting.pool("margin")
    assert pool.heads()["status"].shape == (3, 2)
    assert select(pool, "margin", 1, 0).ids == (entries[1],)


def test_an_anomaly_model_without_a_threshold_has_no_doubt_to_rank_by(waiting: Waiting) -> None:
    entry = waiting.add({"anomaly": {"score": 1.0, "threshold": None, "label": None}, "heads": {}})
    assert waiting.pool("random").ids == (entry,)
    with pytest.raises(UsageError, match="probabilities"):
        select(waiting.pool("margin"), "margin", 1, 0)


def test_what_there_is_not(waiting: Waiting) -> None:
    assert len(waiting.pool("class_balanced(badge)")) == 0
    assert len(waiting.pool("margin", head="grade")) == 0
    waiting.add({"heads": heads_of(mild=0.5, severe=0.5)})
    with pytest.raises(RequestError, match="no head 'nonsense'"):
        waiting.pool("margin", head="nonsense")
    with pytest.raises(UsageError, match="no selection strategy"):
        waiting.pool("best")
