"""Windows put into a gateway's store as the gateway keeps answers, and what readers say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from serving.core.bundle import Bundle
from serving.core.drift import Window
from serving.features.columns import Features as Looks
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.store import Store
from serving.gateway.store.repositories import features, labels, predictions, queue, windows
from serving.gateway.store.repositories.predictions import Origin
from serving.gateway.store.types import new_id
from tests.drift_windows import HEAD
from tests.gateway_rows import ORIGIN, image_of

TASK = "demo"


def origin_of(bundle: Bundle, version: str = "4") -> Origin:
    """Who answered."""
    return replace(ORIGIN, task=TASK, model_name=TASK, model_version=version, bundle_digest=bundle.digest)


def answer(
    store: Store, blobs: BlobStore, tenant: str, bundle: Bundle, found: Window, *, queued: Sequence[str] = ()
) -> list[str]:
    """Keep a window's rows, refused ones as glances; with ``queued`` each enters the queue for those reasons.

    The entries' ids.
    """
    assert found.embedding is not None
    assert found.colour is not None
    assert found.sharpness is not None
    assert found.exposure is not None
    assert found.gradable is not None
    origin, entries = origin_of(bundle), list[str]()
    with store.write(tenant, "test") as scope:
        image = image_of(scope, keep(blobs, tenant, b"a photograph", "image/png"))
        for at, row in enumerate(found.probabilities[HEAD.name]):
            sharpness, exposure = float(found.sharpness[at]), float(found.exposure[at])
            if not found.gradable[at]:
                windows.glance(scope, origin, "retake", Looks(sharpness=sharpness, exposure=exposure))
                continue
            if queued:
                # Each another one: a photograph is in the queue once.
                image = image_of(scope, keep(blobs, tenant, new_id().encode(), "image/png"))
            said = {"label": HEAD.classes[int(row.argmax())], "confidence": float(row.max())}
            said["probabilities"] = dict(zip(HEAD.classes, map(float, row), strict=True))
            made = predictions.add(
                scope, origin, image_id=image.id, verdict="gradable", answer={"heads": {HEAD.name: said}}
            )
            looks = Looks(
                found.embedding[at].astype(np.float32), 0.5, found.colour[at].astype(np.float32),
                sharpness, exposure,
            )  # fmt: skip
            features.add(scope, made.id, looks)
            if queued:
                entry = queue.enter(
                    scope, task=TASK, image_id=image.id, prediction_id=made.id, reasons=queued, priority=1.0
                )
                assert entry is not None
                entries.append(entry.id)
    return entries


def read(store: Store, tenant: str, entries: Sequence[str], classes: Sequence[int]) -> None:
    """A reader says of each entry which class it is."""
    with store.write(tenant, "test") as scope:
        for key, place in zip(entries, classes, strict=True):
            row = queue.get(scope, key)
            labels.add(
                scope, image_id=row.image_id, task=TASK, head=HEAD.name, reader="ada",
                value=HEAD.classes[int(place)], prediction_id=row.prediction_id,
            )  # fmt: skip
            queue.move(scope, key, "done")
