"""Which of S0's answers a reader is asked about, and that nobody is asked about what was never shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.loop.policy import QueuePolicy
from serving.gateway.store import Scope, Store
from serving.gateway.store.repositories import cases, queue
from serving.gateway.store.tables import Image
from serving.gateway.systems.s0.doubts import follow, record
from tests.gateway_rows import image_of
from tests.unit.serving.gateway.systems.s0.test_conclude import ACNE, LESION, answer

GATEWAY: Any = SimpleNamespace(policy=QueuePolicy(audit=0.0))


@pytest.fixture
def kept(blobs: FolderBlobs, tenant: str) -> Any:
    return keep(blobs, tenant, b"a photograph", "image/png")


def waiting(scope: Scope, task: str, image: Image) -> list[str]:
    entry = queue.of_image(scope, task, image.id)
    return [] if entry is None else list(entry.reasons)


def test_an_answer_below_the_threshold_waits_for_a_reader(store: Store, tenant: str, kept: Any) -> None:
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept, case_key="k")
        case = cases.log(scope, "k", {"image_id": image.id}, by="ada")
        sure = record(scope, GATEWAY, answer("skin_lesion", LESION), image, 0.6, returned=True)
        unsure = record(scope, GATEWAY, answer("acne", ACNE), image, 0.6, returned=True)
        assert (sure.uncertain, unsure.uncertain) == (False, True)
        assert waiting(scope, "skin_lesion", image) == []
        assert waiting(scope, "acne", image) == ["uncertain"]
        entry = queue.of_image(scope, "acne", image.id)
        assert entry is not None
        assert entry.case_id == case.id


def test_what_was_not_shown_or_not_gradable_asks_for_nobody(store: Store, tenant: str, kept: Any) -> None:
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept)
        row = record(scope, GATEWAY, answer("acne", ACNE, uncertain=True), image, 0.6, returned=False)
        assert row.returned is False
        refused = answer("skin_lesion", None, verdict="retake", reasons=("blurred",))
        assert record(scope, GATEWAY, refused, image, 0.6, returned=True).verdict == "retake"
        assert waiting(scope, "acne", image) == waiting(scope, "skin_lesion", image) == []


def test_a_rejected_answer_waits_for_a_reader_of_its_task(store: Store, tenant: str, kept: Any) -> None:
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept)
        for task, said in (("skin_lesion", LESION), ("acne", ACNE)):
            record(scope, GATEWAY, answer(task, said), image, 0.0, returned=True)
        payload = {"image_id": image.id, "predictions": [{"label": "mel", "confidence": 0.2}]}
        cases.log(scope, "k", payload, by="ada")
        follow(scope, GATEWAY, cases.get(scope, "k"), rejected=False)
        assert cases.get(scope, "k").task == "skin_lesion"
        assert waiting(scope, "skin_lesion", image) == []
        cases.reject(scope, "k", payload, by="ada")
        follow(scope, GATEWAY, cases.get(scope, "k"), rejected=True)
        assert waiting(scope, "skin_lesion", image) == ["rejected"]
        assert waiting(scope, "acne", image) == []


def test_a_case_logged_after_its_doubtful_check_is_named_in_the_queue(
    store: Store, tenant: str, kept: Any
) -> None:
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept)
        record(scope, GATEWAY, answer("acne", ACNE), image, 0.9, returned=True)
        case = cases.log(scope, "k", {"image_id": image.id}, by="ada")
        follow(scope, GATEWAY, case, rejected=False)
        entry = queue.of_image(scope, "acne", image.id)
        assert entry is not None
        assert entry.case_id == case.id


def test_a_rejection_without_any_answer_is_kept_and_asks_for_nobody(store: Store, tenant: str) -> None:
    with store.write(tenant, "test") as scope:
        cases.reject(scope, "k", {"image_id": "IMG_1.jpg", "predictions": [{"label": "nv"}]}, by="ada")
        follow(scope, GATEWAY, cases.get(scope, "k"), rejected=True)
        assert cases.get(scope, "k").task is None
        assert queue.listed(scope) == []
