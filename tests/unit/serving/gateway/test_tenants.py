"""No tenant sees, changes or refers to another's rows, by any function and by any query."""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import IntegrityError

from data.errors import NotFound, RetidermError
from serving.features.columns import Features as Looks
from serving.gateway.blobs import BlobStore, keep
from serving.gateway.store import Scope, Store, repositories, unscoped
from serving.gateway.store.repositories import (
    audit,
    case_files,
    cases,
    copies,
    erasures,
    features,
    idempotency,
    images,
    jobs,
    labels,
    patients,
    predictions,
    queue,
    scans,
    tokens,
    windows,
)
from serving.gateway.store.scope import TenantLeak
from serving.gateway.store.tables import Base, Case, Patient, Tenanted
from serving.gateway.store.types import new_id
from tests.gateway_rows import ORIGIN, World, dump, fill, image_of, tenant_of

ROUTE = {"route": "POST /patients/", "owner": "ada"}
BATCH: dict[str, Any] = {
    "task": "t",
    "head": "h",
    "strategy": "random",
    "seed": 0,
    "pool_digest": "0" * 64,
    "made_by": "me",
}


def functions() -> dict[str, Callable[..., Any]]:
    """Every public function of the repositories, by ``module.name``."""
    found = {}
    for item in pkgutil.iter_modules([str(Path(repositories.__file__).parent)]):
        module = importlib.import_module(f"{repositories.__name__}.{item.name}")
        if item.name == "parts":
            continue
        for name, value in inspect.getmembers(module, inspect.isfunction):
            if value.__module__ == module.__name__ and not name.startswith("_"):
                found[f"{item.name}.{name}"] = value
    return found


def gone(call: Callable[[], Any]) -> None:
    with pytest.raises(NotFound):
        call()


def empty(value: Any) -> None:
    assert not value


# What each function does in one tenant's scope, asked about another's rows: it finds nothing, or begins
# something of its own. ``w`` is the other tenant's world.
SCENES: dict[str, Callable[[Scope, World], None]] = {
    "audit.data_of": lambda s, w: None,  # of a row in hand
    "audit.entries": lambda s, w: empty(audit.entries(s)),
    "audit.head": lambda s, w: empty(audit.head(s).seq),
    "audit.verify": lambda s, w: empty(audit.verify(s)),
    "audit.write_entries": lambda s, w: audit.write_entries(s),
    "case_files.gather": lambda s, w: empty(_files_of_theirs(s, w)),
    "cases.begin": lambda s, w: gone(lambda: cases.begin(s, "new", {}, task=None, image_id=w.image)),
    "cases.by_id": lambda s, w: gone(lambda: cases.by_id(s, w.case_row)),
    "cases.entries": lambda s, w: gone(lambda: cases.entries(s, w.case)),
    "cases.find": lambda s, w: empty(cases.find(s, w.case)),
    "cases.get": lambda s, w: gone(lambda: cases.get(s, w.case)),
    "cases.listed": lambda s, w: empty(cases.listed(s)),
    "cases.log": lambda s, w: empty(cases.log(s, w.case, {"image_id": w.image}, by="me").image_id),
    "cases.reject": lambda s, w: empty(cases.reject(s, "new", {"image_id": w.image}, by="me").reason),
    "cases.rejections": lambda s, w: gone(lambda: cases.rejections(s, "no such")),
    "cases.rejections_of": lambda s, w: empty(cases.rejections_of(s, images.with_content(s, w.sha256))),
    "labels.taken_back": lambda s, w: empty(labels.taken_back(s, "skin_lesion")),
    "cases.of_images": lambda s, w: empty(cases.of_images(s, images.with_content(s, w.sha256))),
    "cases.by_ids": lambda s, w: empty(cases.by_ids(s, [w.case_row])),
    "copies.pass_on": lambda s, w: empty(
        copies.pass_on(s, [copies.Place(ORIGIN.task, w.sha256, ("audit",), 1.0, 1)])
    ),
    "copies.places": lambda s, w: empty(copies.places(s, [w.image], [w.case_row], [w.prediction])),
    "erasures.aged": lambda s, w: empty(erasures.aged(s, "image", s.now + dt.timedelta(days=1))),
    "erasures.contents": lambda s, w: gone(lambda: erasures.contents(s, w.erasure)),
    "erasures.excluded": lambda s, w: empty(erasures.excluded(s)),
    "erasures.finish": lambda s, w: gone(lambda: erasures.finish(s, w.erasure)),
    "erasures.get": lambda s, w: gone(lambda: erasures.get(s, w.erasure)),
    "erasures.listed": lambda s, w: empty([e for e in erasures.listed(s) if e.id == w.erasure]),
    "erasures.learn": lambda s, w: gone(lambda: erasures.learn(s, w.erasure, [])),
    "erasures.reach": lambda s, w: gone(lambda: erasures.reach(s, patient_id=w.patient)),
    "erasures.reach_aged": lambda s, w: empty(
        erasures.reach_aged(s, "image", [w.image], s.now + dt.timedelta(days=1)).size()
    ),
    "erasures.remove": lambda s, w: empty(
        sum(
            erasures.remove(
                s,
                erasures.Reach({w.patient}, {w.image, w.overlay}, {w.scan}, {w.case_row}),
                name="patient:x",
                reason="attack",
            ).counts.values()
        )
    ),
    "erasures.settle": lambda s, w: gone(lambda: erasures.settle(s, w.erasure, w.sha256, kept=True)),
    "erasures.unasked": lambda s, w: empty([e for e in erasures.unasked(s) if e.id == w.erasure]),
    "erasures.unfinished": lambda s, w: empty([e for e in erasures.unfinished(s) if e.id == w.erasure]),
    "features.add": lambda s, w: gone(lambda: features.add(s, w.prediction, Looks())),
    "features.of": lambda s, w: empty(features.of(s, [w.prediction])),
    "idempotency.find": lambda s, w: empty(idempotency.find(s, "key-1", **ROUTE, digest="other")),
    "idempotency.answer": lambda s, w: _raises_value(
        lambda: idempotency.answer(s, "key-1", **ROUTE, status=200, body={})
    ),
    "idempotency.claim": lambda s, w: empty(idempotency.claim(s, "key-1", **ROUTE, digest="d")),
    "idempotency.clear_expired": lambda s, w: empty(idempotency.clear_expired(s)),
    "images.add": lambda s, w: None,  # see test_an_image_can_not_be_added_to_another_tenants_patient
    "images.belong": lambda s, w: gone(lambda: images.belong(s, w.image, w.patient)),
    "images.by_id": lambda s, w: empty(images.by_id(s, [w.image, w.overlay])),
    "images.clear_notes": lambda s, w: images.clear_notes(s),
    "images.forget_content": lambda s, w: images.forget_content(s, w.sha256),
    "images.let_go": lambda s, w: images.let_go(s, w.sha256),
    "images.get": lambda s, w: gone(lambda: images.get(s, w.image)),
    "images.known": lambda s, w: empty(images.known(s, [w.sha256])),
    "images.lock_content": lambda s, w: empty(images.lock_content(s, w.sha256)),
    "images.newest_of_case": lambda s, w: empty(images.newest_of_case(s, w.case)),
    "images.of_case": lambda s, w: empty(images.of_case(s, w.case)),
    "images.unreferenced": lambda s, w: empty([c for c in images.unreferenced(s) if c == w.unreferenced]),
    "images.with_content": lambda s, w: empty(images.with_content(s, w.sha256)),
    "jobs.add": lambda s, w: empty(jobs.add(s, "analyse", f"scan:{w.scan}").attempts),
    "jobs.claim": lambda s, w: gone(lambda: jobs.claim(s, w.job, 10)),
    "jobs.finish": lambda s, w: gone(lambda: jobs.finish(s, w.job, 0)),
    "jobs.get": lambda s, w: gone(lambda: jobs.get(s, w.job)),
    "jobs.release": lambda s, w: gone(lambda: jobs.release(s, w.job, 0)),
    "jobs.renew": lambda s, w: gone(lambda: jobs.renew(s, w.job, 0, 10)),
    "jobs.waiting": lambda s, w: empty([j for j in jobs.waiting(s) if j.id == w.job]),
    "labels.add": lambda s, w: gone(
        lambda: labels.add(s, image_id=w.image, task="t", head="h", reader="r", value="v")
    ),
    "labels.get": lambda s, w: gone(lambda: labels.get(s, w.label)),
    "labels.listed": lambda s, w: empty(labels.listed(s, withdrawn=True)),
    "labels.of_contents": lambda s, w: empty(labels.of_contents(s, "skin_lesion", [w.sha256])),
    "labels.pairs": lambda s, w: empty(labels.pairs(s, "skin_lesion")),
    "labels.withdraw": lambda s, w: gone(lambda: labels.withdraw(s, w.label)),
    "patients.add": lambda s, w: empty(patients.add(s, name="Bob").age),
    "patients.get": lambda s, w: gone(lambda: patients.get(s, w.patient)),
    "patients.listed": lambda s, w: empty([p for p in patients.listed(s, limit=1000) if p.id == w.patient]),
    "predictions.add": lambda s, w: gone(
        lambda: predictions.add(s, ORIGIN, image_id=w.image, verdict="gradable", answer={})
    ),
    "predictions.by_ids": lambda s, w: empty(predictions.by_ids(s, [w.prediction])),
    "predictions.get": lambda s, w: gone(lambda: predictions.get(s, w.prediction)),
    "predictions.listed": lambda s, w: empty(predictions.listed(s)),
    "predictions.side_by_side": lambda s, w: empty(predictions.side_by_side(s, "dr_grading")),
    "predictions.trace": lambda s, w: gone(lambda: predictions.trace(s, w.prediction)),
    "queue.add_batch": lambda s, w: gone(lambda: queue.add_batch(s, entries=[w.entry], **BATCH)),
    "queue.batch": lambda s, w: gone(lambda: queue.batch(s, w.batch)),
    "queue.batches": lambda s, w: empty(queue.batches(s)),
    "queue.counts": lambda s, w: empty(queue.counts(s)),
    "queue.enter": lambda s, w: gone(
        lambda: queue.enter(
            s, task="t", image_id=w.image, prediction_id=w.prediction, reasons=["audit"], priority=1
        )
    ),
    "queue.get": lambda s, w: gone(lambda: queue.get(s, w.entry)),
    "queue.listed": lambda s, w: empty(queue.listed(s, state=None)),
    "queue.move": lambda s, w: gone(lambda: queue.move(s, w.entry, "done")),
    "queue.of_image": lambda s, w: gone(lambda: queue.of_image(s, "skin_lesion", w.image)),
    "queue.urgent": lambda s, w: empty(queue.urgent(s)),
    "scans.add": lambda s, w: gone(lambda: scans.add(s, system="s2", owner="me", patient_id=w.patient)),
    "scans.complete": lambda s, w: gone(lambda: scans.complete(s, w.scan, {})),
    "scans.fail": lambda s, w: gone(lambda: scans.fail(s, w.scan, "no_face", "No face.")),
    "scans.get": lambda s, w: gone(lambda: scans.get(s, w.scan)),
    "scans.history": lambda s, w: empty(scans.history(s, owner="ada")),
    "scans.start": lambda s, w: gone(lambda: scans.start(s, w.scan, w.image)),
    "tokens.add": lambda s, w: empty(
        tokens.add(
            s,
            kind="bearer",
            role="admin",
            name="n",
            subject="ada",
            lookup="x",
            secret_hash="y",
            expires_at=None,
        ).revoked_at
    ),
    "tokens.get": lambda s, w: gone(lambda: tokens.get(s, w.token)),
    "tokens.listed": lambda s, w: empty([t for t in tokens.listed(s) if t.id == w.token]),
    "tokens.retire": lambda s, w: gone(lambda: tokens.retire(s, w.token, w.token, None)),
    "tokens.revoke": lambda s, w: gone(lambda: tokens.revoke(s, w.token)),
    "windows.find": lambda s, w: empty(windows.find(s, ORIGIN.bundle_digest, "images")),
    "windows.keep": lambda s, w: empty(
        windows.keep(
            s,
            task="dr_grading",
            digest=ORIGIN.bundle_digest,
            kind="images",
            before=2,
            first=3,
            last=4,
            report=None,
            running=None,
        )
    ),
    "windows.numbers": lambda s, w: empty(windows.numbers(s, ORIGIN.bundle_digest)),
    "windows.read_numbers": lambda s, w: empty(windows.read_numbers(s, "skin_lesion", ORIGIN.bundle_digest)),
    "windows.reads": lambda s, w: empty(windows.reads(s, "skin_lesion", ORIGIN.bundle_digest, 0, 2**62)),
    "windows.sights": lambda s, w: empty(windows.sights(s, ORIGIN.bundle_digest, 0, 2**62)),
    "windows.unread": lambda s, w: empty(windows.unread(s, "skin_lesion", ORIGIN.bundle_digest, 0, 2**62)),
    # Last: what it begins is of the one who asks, and the others look for it.
    "windows.glance": lambda s, w: empty(windows.glance(s, ORIGIN, "retake", Looks()).sharpness),
}


def _files_of_theirs(scope: Scope, world: World) -> Any:
    """What is found for a row that was got elsewhere, of another tenant's case."""
    row = Case(id=world.case_row, key=world.case, image_id=world.image)
    (told,) = case_files.gather(scope, [row])
    return told.entries or told.rejections or told.images or told.labels or told.predictions


def _raises_value(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="belongs into the transaction"):
        call()


class Extended:
    """A world with an erasure and an unreferenced content in it."""

    def __init__(self, world: World, erasure: str, unreferenced: str) -> None:
        self._world, self.erasure, self.unreferenced = world, erasure, unreferenced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


@pytest.fixture
def theirs(store: Store, blobs: BlobStore, other: str) -> Extended:
    world = fill(store, blobs, other)
    lonely = "e" * 64
    with store.write(other, "test") as scope:
        images.lock_content(scope, lonely)
        patient = patients.add(scope, name="Erased")
        kept = keep(blobs, other, b"erased", "image/png")
        image_of(scope, kept, patient_id=patient.id)
        reach = erasures.reach(scope, patient_id=patient.id)
        row = erasures.remove(scope, reach, name="patient:x", reason="asked")
    return Extended(world, row.id, lonely)


def test_every_repository_function_takes_a_scope_first_and_has_a_scene() -> None:
    found = functions()
    assert set(found) == set(SCENES)
    for name, function in found.items():
        first = next(iter(inspect.signature(function).parameters.values()))
        assert name == "audit.data_of" or first.annotation in (Scope, "Scope"), name


def test_no_function_reaches_another_tenants_rows(store: Store, tenant: str, other: str, theirs: Any) -> None:
    before = dump(store, other)
    assert all(before.values()), "the other tenant has rows everywhere"
    for name, scene in SCENES.items():
        with store.write(tenant, "mallory") as scope:
            try:
                scene(scope, theirs)
            except (AssertionError, RetidermError) as error:
                raise AssertionError(f"{name}: {error!r}") from error
    assert dump(store, other) == before
    with store.read(other) as scope:
        assert audit.verify(scope) == []


def test_the_functions_without_a_tenant_are_these(store: Store) -> None:
    found = {
        name
        for name, value in inspect.getmembers(unscoped, inspect.isfunction)
        if value.__module__ == unscoped.__name__ and not name.startswith("_")
    }
    assert found == {
        "all_tenants",
        "create_tenant",
        "ensure_tenant",
        "find_tenant",
        "find_token",
        "has_tokens",
        "mark_used",
    }


def test_a_query_that_forgets_the_tenant_sees_its_own_all_the_same(
    store: Store, blobs: BlobStore, tenant: str, theirs: Any
) -> None:
    tables = [m.class_ for m in Base.registry.mappers if issubclass(m.class_, Tenanted)]
    assert len(tables) > 15
    with store.write(tenant, "mallory") as scope:
        for table in tables:
            assert scope.session.scalars(select(table)).all() == [], table.__name__
            assert scope.session.scalar(select(func.count()).select_from(table)) == 0, table.__name__
        assert scope.session.execute(update(Patient).values(name="taken over")).rowcount == 0
        assert scope.session.execute(delete(Patient).where(Patient.id == theirs.patient)).rowcount == 0


def test_a_row_of_another_tenant_is_not_written(store: Store, tenant: str, other: str) -> None:
    with store.write(tenant, "mallory") as scope:
        row = patients.add(scope, name="Bob")
    with store.write(tenant, "mallory") as scope:
        row = patients.get(scope, row.id)
        row.tenant_id = other
        with pytest.raises(TenantLeak):
            scope.session.flush()
        scope.session.rollback()


def test_the_database_itself_refuses_a_reference_to_another_tenant(
    store: Store, tenant: str, theirs: Any
) -> None:
    statement = text(
        "INSERT INTO scans (tenant_id, id, created_at, number, system, owner, status, updated_at, patient_id)"
        " VALUES (:tenant, :id, '2026-01-01', 1, 's2', 'm', 'pending', '2026-01-01', :patient)"
    )
    values = {"tenant": tenant, "id": new_id(), "patient": theirs.patient}
    with pytest.raises(IntegrityError), store.engine.begin() as connection:
        connection.execute(statement, values)


def test_an_image_can_not_be_added_to_another_tenants_patient(
    store: Store, blobs: BlobStore, tenant: str, other: str, theirs: Any
) -> None:
    kept = keep(blobs, tenant, b"mine", "image/png")
    for values in ({"patient_id": theirs.patient}, {"derived_from": theirs.image}):
        with pytest.raises(NotFound), store.write(tenant, "mallory") as scope:
            image_of(scope, kept, **values)
    with pytest.raises(ValueError, match="another tenant"), store.write(other, "test") as scope:
        image_of(scope, kept)


def test_equal_contents_of_two_tenants_are_two(
    store: Store, blobs: BlobStore, tenant: str, other: str
) -> None:
    for name in (tenant, other):
        kept = keep(blobs, name, b"the same", "image/png")
        with store.write(name, "test") as scope:
            image_of(scope, kept)
    blobs.delete(tenant, kept.sha256)
    assert blobs.get(other, kept.sha256) == b"the same"


def test_a_tenant_that_is_no_id_is_not_found(store: Store) -> None:
    for name in ("", "x", "'; DROP TABLE tenants; --", "\0"):
        with pytest.raises(NotFound), store.read(name):
            pass


def test_tenants_are_found_by_name_or_id(store: Store, tenant: str) -> None:
    assert unscoped.find_tenant(store, "clinic").id == unscoped.find_tenant(store, tenant).id == tenant
    with pytest.raises(NotFound):
        unscoped.find_tenant(store, "nobody")
    with pytest.raises(RetidermError, match="already"):
        tenant_of(store, "clinic")
    assert unscoped.ensure_tenant(store, "clinic").id == tenant
    assert [row.name for row in unscoped.all_tenants(store)] == ["clinic"]
