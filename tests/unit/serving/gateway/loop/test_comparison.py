"""Champion and challenger on the same images, held against what readers said."""

from __future__ import annotations

from dataclasses import replace

from serving.gateway.blobs import BlobStore, keep
from serving.gateway.loop.comparison import compare_answers
from serving.gateway.loop.reading import Said, record
from serving.gateway.store import Store
from serving.gateway.store.repositories import labels, predictions, queue
from tests.gateway_rows import ORIGIN, image_of

RIVAL = replace(
    ORIGIN, model_name="dr_grading-challenger", model_version="4", bundle_digest="sha256:" + "e" * 64
)


def _heads(label: str) -> dict[str, object]:
    return {"heads": {"grade": {"label": label, "probabilities": {"mild": 0.5, "severe": 0.5}}}}


def test_only_what_readers_agree_on_or_somebody_decided_is_a_truth(
    store: Store, blobs: BlobStore, tenant: str
) -> None:
    entries = []
    for number in range(4):
        kept = keep(blobs, tenant, f"image {number}".encode(), "image/png")
        with store.write(tenant, "test") as scope:
            image = image_of(scope, kept)
            said = predictions.add(
                scope, ORIGIN, image_id=image.id, verdict="gradable", answer=_heads("mild")
            )
            predictions.add(
                scope, RIVAL, image_id=image.id, verdict="gradable", answer=_heads("severe"),
                role="challenger", returned=False,
            )  # fmt: skip
            entry = queue.enter(
                scope, task="dr_grading", image_id=image.id, prediction_id=said.id,
                reasons=["disagreement"], priority=1.0, readers_needed=2,
            )  # fmt: skip
            entries.append(entry.id)
    spoken = (
        ("ada", "mild", "severe", "severe"),
        ("ben", "severe", "mild", "severe"),
        ("cleo", None, "mild", None),
    )
    for reader, *values in spoken:
        for entry_id, value in zip(entries, values, strict=False):
            if value is not None:
                with store.write(tenant, "test") as scope:
                    record(scope, entry_id, reader=reader, said={"grade": Said(value)})
    found = compare_answers(store, tenant, "dr_grading")
    # The first is disputed, the second decided for the champion, the third clear for the challenger.
    assert found.to_dict() == {
        "champion": "3", "challenger": "4", "images": 4, "agree": 0, "labelled": 2,
        "champion_right": 1, "challenger_right": 1,
    }  # fmt: skip


def test_a_label_of_a_first_copy_counts_for_answers_to_the_photograph_sent_again(
    store: Store, blobs: BlobStore, tenant: str
) -> None:
    kept = keep(blobs, tenant, b"one photograph", "image/png")
    with store.write(tenant, "test") as scope:
        first = image_of(scope, kept)
        labels.add(scope, image_id=first.id, task="dr_grading", head="grade", value="mild", reader="ada")
        again = image_of(scope, kept)
        for origin, said, role in ((ORIGIN, "severe", "champion"), (RIVAL, "mild", "challenger")):
            predictions.add(
                scope, origin, image_id=again.id, verdict="gradable", answer=_heads(said), role=role
            )
        # Of another task it is a label of something else.
        labels.add(scope, image_id=first.id, task="acne", head="grade", value="severe", reader="ada")
    found = compare_answers(store, tenant, "dr_grading")
    assert (found.images, found.labelled, found.champion_right, found.challenger_right) == (1, 1, 0, 1)
