"""Migrations give the tables that the code expects, once, whoever starts them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, inspect, text

from data.errors import StoreError
from serving.gateway.store import Store, migrate, open_store
from serving.gateway.store.repositories import cases
from serving.gateway.store.tables import Base, Case, Tenant
from serving.gateway.store.types import new_id
from tests.gateway_servers import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'x.db'}" if request.param == "sqlite" else new_database(empty=True)


def test_the_migrations_make_what_the_tables_say(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_an_open_store_is_at_the_newest_version(url: str) -> None:
    store = Store(url)
    assert migrate.current(store) is None
    migrate.upgrade(store)
    assert migrate.current(store) == migrate.newest()
    migrate.upgrade(store)
    store.close()


def test_several_that_start_at_once_on_an_empty_database(url: str) -> None:
    failed: list[BaseException] = []

    def start() -> None:
        try:
            open_store(url).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_newer_database_is_left_alone(url: str) -> None:
    open_store(url).close()
    store = Store(url)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="not one that this program knows"):
        migrate.upgrade(store)
    store.close()


def test_a_migration_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with pytest.raises(RuntimeError):
        migrate.upgrade(store)
    assert inspect(store.engine).get_table_names() == []
    monkeypatch.undo()
    migrate.upgrade(store)
    assert migrate.current(store) == migrate.newest()
    store.close()


def test_a_database_of_an_earlier_version_keeps_its_documents(url: str) -> None:
    store = Store(url)
    migrate.upgrade(store, "0002")
    tenant, now = new_id(), store.clock()
    document = {"z": 1, "status": "success", "nested": {"bb": [1.5, None], "a": "ä"}}
    # By tables alone: transactions of today's program look into tables that came later.
    with store.engine.begin() as connection:
        connection.execute(insert(Tenant.__table__).values(id=tenant, name="clinic", created_at=now))
        connection.execute(
            insert(Case.__table__).values(
                tenant_id=tenant, id=new_id(), created_at=now, updated_at=now, number=1, key="case-1",
                rejected=False, payload=document,
            )
        )  # fmt: skip
    migrate.upgrade(store)
    with store.read(tenant) as scope:
        assert cases.get(scope, "case-1").payload == {
            "z": 1,
            "status": "success",
            "nested": {"bb": [1.5, None], "a": "ä"},
        }
    migrate.upgrade(store)
    store.close()
