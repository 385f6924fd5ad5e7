"""kill -9 between a label and its answer: kept whole or not at all, and sent again it stands once."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import httpx
import pytest

from serving.gateway.access import Role
from serving.gateway.blobs import keep
from serving.gateway.store.repositories import audit, labels, predictions, queue
from tests.gateway_live import Live, live_gateway
from tests.gateway_rows import ORIGIN, image_of

pytestmark = pytest.mark.slow
HEADS = {
    "skin": {"label": "dry", "confidence": 0.6, "probabilities": {"dry": 0.6, "oily": 0.4}},
    "hair": {"label": "wavy", "confidence": 0.9, "probabilities": {"wavy": 0.9, "curly": 0.1}},
}
SAID = {"heads": {"skin": {"value": "oily"}, "hair": {"cannot_grade": "covered"}}, "comment": "twice"}
#: Seconds after the request began: before it is read, in its transaction, after it.
MOMENTS = (0.0, 0.003, 0.006, 0.01, 0.02)


def entries(live: Live) -> list[str]:
    """One that waits for each moment."""
    found = []
    with live.settings() as settings, live.scope() as scope:
        for number in range(len(MOMENTS)):
            kept = keep(settings.open_blobs(), scope.tenant, f"image {number}".encode(), "image/png")
            image = image_of(scope, kept)
            said = predictions.add(
                scope, ORIGIN, image_id=image.id, verdict="gradable", answer={"heads": HEADS}
            )
            entry = queue.enter(
                scope, task="dr_grading", image_id=image.id, prediction_id=said.id,
                reasons=["audit"], priority=1.0,
            )  # fmt: skip
            found.append(entry.id)
    return found


def standing(live: Live, entry: str) -> tuple[str, list[tuple[str, str | None, str | None]]]:
    with live.scope() as scope:
        row = queue.get(scope, entry)
        rows = labels.listed(scope, image_id=row.image_id)
        return row.state, sorted((one.head, one.value, one.comment) for one in rows)


def test_a_label_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    whole = ("done", [("hair", None, "twice"), ("skin", "oily", "twice")])
    with live_gateway(tmp_path / "gateway", "http://127.0.0.1:9", GATEWAY_SYSTEMS="v1,review") as live:
        token = live.token(Role.REVIEWER, subject="eve")
        for entry, moment in zip(entries(live), MOMENTS, strict=True):
            path = f"/review/api/entries/{entry}/labels"
            with live.client(token) as reader:
                assert reader.get("/review/api/queue").status_code == 200

                def send(reader: httpx.Client = reader, path: str = path) -> None:
                    with contextlib.suppress(httpx.HTTPError):
                        reader.post(path, json=SAID)

                sending = threading.Thread(target=send)
                sending.start()
                time.sleep(moment)
                live.kill()
                sending.join()
            assert standing(live, entry) in (("waiting", []), whole)
            live.start()
            # What the page does when its reader presses Enter again.
            with live.client(token) as reader:
                assert reader.post(path, json=SAID).status_code == 200
            assert standing(live, entry) == whole
        with live.scope() as scope:
            assert audit.verify(scope) == []
