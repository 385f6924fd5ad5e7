"""The earlier scans beside a case: those before its photograph, however many came after it."""

from __future__ import annotations

from serving.gateway.blobs import BlobStore, keep
from serving.gateway.store import Store
from serving.gateway.store.repositories import images, patients, scans
from serving.gateway.systems.review.entries import _MOST_EARLIER, _scans_before
from tests.gateway_rows import image_of


def test_later_scans_do_not_take_the_earlier_ones_places(store: Store, blobs: BlobStore, tenant: str) -> None:
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada").id
        earlier = [
            scans.add(scope, system="s2", owner="o", patient_id=patient, status="completed").id
            for _ in range(2)
        ]
        other = patients.add(scope, name="Bea").id
        scans.add(scope, system="s2", owner="o", patient_id=other, status="completed")
    kept = keep(blobs, tenant, b"photograph", "image/png")
    with store.write(tenant, "test") as scope:
        image = image_of(scope, kept, patient_id=patient).id
        # Its own scan is none of the earlier ones.
        scans.add(scope, system="s2", owner="o", patient_id=patient, image_id=image)
    with store.write(tenant, "test") as scope:
        for _ in range(_MOST_EARLIER + 1):
            scans.add(scope, system="s2", owner="o", patient_id=patient, status="completed")
    with store.read(tenant) as scope:
        assert [row.id for row in _scans_before(scope, images.get(scope, image))] == earlier[::-1]
