"""A reader's way through the queue: what comes next, what came before, and what they have read already."""

from __future__ import annotations

import pytest

from serving.gateway.blobs import BlobStore, keep
from serving.gateway.loop.reading import Said, record
from serving.gateway.store import Store
from serving.gateway.store.repositories import predictions, queue
from serving.gateway.store.repositories.queue import Place
from tests.gateway_rows import ORIGIN, image_of

HEADS = {"grade": {"label": "mild", "probabilities": {"mild": 0.6, "severe": 0.4}}}


@pytest.fixture
def entries(store: Store, blobs: BlobStore, tenant: str) -> list[str]:
    """Five that wait, the most urgent first; the second and third are as urgent as each other."""
    found = []
    for number, priority in enumerate((3.0, 2.0, 2.0, 1.0, 0.5)):
        kept = keep(blobs, tenant, f"image {number}".encode(), "image/png")
        with store.write(tenant, "test") as scope:
            image = image_of(scope, kept)
            said = predictions.add(
                scope, ORIGIN, image_id=image.id, verdict="gradable", answer={"heads": HEADS}
            )
            entry = queue.enter(
                scope, task="dr_grading", image_id=image.id, prediction_id=said.id,
                reasons=["audit"], priority=priority, readers_needed=2,
            )  # fmt: skip
            found.append(entry.id)
    return found


def test_there_and_back(store: Store, tenant: str, entries: list[str]) -> None:
    with store.read(tenant) as scope:
        there, place = [], None
        while rows := queue.urgent(scope, after=place, limit=1):
            there.append(rows[0].id)
            place = Place.read(str(Place.of(rows[0])))
        assert there == entries
        back = [entries[-1]]
        while rows := queue.urgent(scope, before=place, limit=1):
            back.append(rows[0].id)
            place = Place.of(rows[0])
        assert back == entries[::-1]
        last = Place.of(queue.get(scope, entries[4]))
        assert [row.id for row in queue.urgent(scope, before=last)] == entries[3::-1]


def test_what_a_reader_has_read_waits_for_others_only(store: Store, tenant: str, entries: list[str]) -> None:
    with store.write(tenant, "test") as scope:
        record(scope, entries[1], reader="ada", said={"grade": Said("mild")})
    with store.read(tenant) as scope:
        assert [row.id for row in queue.urgent(scope, unread_by="ada")] == [entries[0], *entries[2:]]
        assert [row.id for row in queue.urgent(scope, unread_by="ben")] == entries
        assert [row.id for row in queue.urgent(scope)] == entries


def test_counts_of_a_batch_and_the_newest_batch(store: Store, tenant: str, entries: list[str]) -> None:
    with store.write(tenant, "test") as scope:
        first, second = (
            queue.add_batch(
                scope, task="dr_grading", head="", strategy="random", seed=seed, pool_digest="0" * 64,
                entries=chosen, made_by="ada",
            ).id
            for seed, chosen in enumerate((entries[:2], entries[2:4]))
        )  # fmt: skip
        queue.move(scope, entries[0], "done")
    with store.read(tenant) as scope:
        assert queue.counts(scope, batch_id=first) == {"dr_grading": {"done": 1, "waiting": 1}}
        assert queue.counts(scope)["dr_grading"] == {"done": 1, "waiting": 4}
        assert [row.id for row in queue.batches(scope, newest=True)] == [second, first]
        assert [row.id for row in queue.batches(scope)] == [first, second]
