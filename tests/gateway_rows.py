"""Tenants with something in every table, for the gateway's tests."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.features.columns import Features as Looks
from serving.gateway.access import Role, create
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.blobs.signing import Signer
from serving.gateway.store import Scope, Store, open_store, unscoped
from serving.gateway.store.repositories import (
    cases,
    features,
    idempotency,
    images,
    jobs,
    labels,
    patients,
    predictions,
    queue,
    scans,
    windows,
)
from serving.gateway.store.repositories.predictions import Origin
from serving.gateway.store.types import about

ORIGIN = Origin(
    task="dr_grading",
    model_name="dr_grading",
    model_version="3",
    bundle_digest="sha256:" + "b" * 64,
    precision="fp32",
    dataset_digest="sha256:" + "d" * 64,
    code_digest="sha256:" + "c" * 64,
)


def folder_blobs(path: Path) -> FolderBlobs:
    """Images in a folder, with a key."""
    return FolderBlobs(path, Signer([b"k" * 32]))


def tenant_of(store: Store, name: str) -> str:
    """The id of a new tenant."""
    return unscoped.create_tenant(store, name).id


#: Who erases, and why.
WHO = {"actor": "token:1", "reason": "asked by the patient"}


@dataclass(frozen=True)
class World:
    """What :func:`fill` made: ids, and the SHA-256 of image and overlay."""

    tenant: str
    patient: str
    image: str
    overlay: str
    scan: str
    prediction: str
    case: str
    case_row: str
    label: str
    job: str
    entry: str
    batch: str
    token: str
    lookup: str
    secret: str
    sha256: str
    overlay_sha256: str


def fill(store: Store, blobs: BlobStore, tenant: str, seed: str = "a") -> World:
    """A patient with a scan, image, overlay, prediction, case, rejection, label, job, key and token."""
    data, overlay_data = f"image {seed}".encode(), f"overlay {seed}".encode()
    kept = keep(blobs, tenant, data, "image/jpeg")
    overlay_kept = keep(blobs, tenant, overlay_data, "image/png")
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Ada", age=45, email="ada@example.org")
        image = image_of(scope, kept, patient_id=patient.id, case_key="case-1")
        overlay = image_of(scope, overlay_kept, kind="overlay", derived_from=image.id)
        scan = scans.add(scope, system="s2", owner="ada", patient_id=patient.id, visit_type="follow-up")
        scans.start(scope, scan.id, image.id)
        scans.complete(scope, scan.id, {"grade": 2}, overlay_id=overlay.id)
        prediction = predictions.add(
            scope, ORIGIN, image_id=image.id, scan_id=scan.id, verdict="gradable", answer={"heads": {}}
        )
        said = {"case_id": "case-1", "image_id": image.id, "status": "success", "user_id": "u1"}
        case = cases.log(scope, "case-1", said, by="ada", task="skin_lesion")
        cases.reject(scope, "case-1", {**said, "reason": "wrong", "predictions": [{"label": "nv"}]}, by="ada")
        label = labels.add(
            scope,
            image_id=image.id,
            case_id=case.id,
            prediction_id=prediction.id,
            task="skin_lesion",
            head="diagnosis",
            value="nv",
            reader="eve",
        )
        features.add(
            scope, prediction.id, Looks(np.ones(4, np.float32), 0.5, np.ones(6, np.float32), 1.0, 0.0)
        )
        entry = queue.enter(
            scope,
            task="skin_lesion",
            image_id=image.id,
            prediction_id=prediction.id,
            case_id=case.id,
            reasons=["rejected"],
            priority=1.0,
        )
        batch = queue.add_batch(
            scope,
            task="skin_lesion",
            head="diagnosis",
            strategy="random",
            seed=0,
            pool_digest="0" * 64,
            entries=[entry.id],
            made_by="eve",
        )
        windows.glance(scope, ORIGIN, "retake", Looks(sharpness=0.1, exposure=100.0))
        windows.keep(
            scope, task=ORIGIN.task, digest=ORIGIN.bundle_digest, kind="images", before=None, first=1, last=2,
            report=None, running=None,
        )  # fmt: skip
        job = jobs.add(scope, "analyse", about("scan", scan.id), {"scan": scan.id})
        idempotency.claim(scope, "key-1", route="POST /patients/", owner="ada", digest="d")
        idempotency.answer(
            scope,
            "key-1",
            route="POST /patients/",
            owner="ada",
            status=200,
            body={"name": "Ada"},
            about=about("patient", patient.id),
        )
        token = create(scope, role=Role.APP, name="app")
    return World(
        tenant,
        patient.id,
        image.id,
        overlay.id,
        scan.id,
        prediction.id,
        "case-1",
        case.id,
        label.id,
        job.id,
        entry.id,
        batch.id,
        token.row.id,
        token.row.lookup,
        token.text,
        hashlib.sha256(data).hexdigest(),
        hashlib.sha256(overlay_data).hexdigest(),
    )


def image_of(scope: Scope, kept, **more):  # type: ignore[no-untyped-def]
    """An image's row with what it needs."""
    values = {"media_type": "image/png", "width": 8, "height": 8, "system": "s2", "owner": "ada"} | more
    return images.add(scope, kept, **values)


def bystander(store: Store, blobs: BlobStore, tenant: str, data: bytes = b"bystander") -> str:
    """Another patient of the same tenant, with an image, scan, case and label; the patient's id."""
    kept = keep(blobs, tenant, data, "image/png")
    with store.write(tenant, "test") as scope:
        patient = patients.add(scope, name="Bob").id
        image = image_of(scope, kept, patient_id=patient, case_key="other-case", owner="bob").id
        scans.add(scope, system="s2", owner="bob", patient_id=patient, image_id=image)
        cases.log(scope, "other-case", {"image_id": image}, by="bob")
        labels.add(scope, image_id=image, task="t", head="h", value="v", reader="eve")
    return patient


def dump(store: Store, tenant: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a tenant, by table, as the database has it."""
    from sqlalchemy import text

    from serving.gateway.store.tables import Base

    found = {}
    with store.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            column = "id" if table.name == "tenants" else "tenant_id"
            rows = connection.execute(
                text(f"SELECT * FROM {table.name} WHERE {column} = :tenant"), {"tenant": tenant}
            )
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


def databases(tmp_path: Path, kind: str) -> Iterator[Store]:
    """A store of that kind, with its tables: a copy of one that was migrated once."""
    from tests.gateway_servers import new_database

    if kind == "sqlite":
        shutil.copy(_sqlite_template(), tmp_path / "gateway.db")
        (tmp_path / "gateway.db").chmod(0o600)
    store = Store(f"sqlite:///{tmp_path / 'gateway.db'}" if kind == "sqlite" else new_database())
    yield store
    store.close()


@functools.cache
def _sqlite_template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="retiderm-gateway-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_store(f"sqlite:///{folder / 'template.db'}").close()
    return folder / "template.db"
