"""Opening a database, its transactions, and what it refuses."""

from __future__ import annotations

import datetime as dt
import threading
import traceback
from pathlib import Path

import pytest
from sqlalchemy import text

from data.errors import (
    Conflict,
    NotFound,
    Overloaded,
    RequestError,
    RetidermError,
    StoreError,
    UsageError,
)
from serving.gateway.store import Store, open_store, unscoped
from serving.gateway.store.checks import check_value
from serving.gateway.store.engine import database_url
from serving.gateway.store.numbers import Numbers
from serving.gateway.store.repositories import cases, patients, scans
from tests.gateway_rows import tenant_of


def test_urls() -> None:
    assert database_url("sqlite:///a/b.db").database == "a/b.db"
    assert database_url("a/b.db").get_backend_name() == "sqlite"
    for name in ("postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"):
        assert database_url(name).drivername == "postgresql+psycopg2"
    for name in ("mysql://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:", "postgresql://u:hunter2@h:x/d"):
        with pytest.raises(UsageError, match=r"database|SQLite") as error:
            database_url(name)
        assert "hunter2" not in str(error.value)


def test_sqlite_is_set_up_for_safety(sqlite_store: Store) -> None:
    with sqlite_store.engine.connect() as connection:
        asked = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "secure_delete")
        }
    assert asked == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "secure_delete": 1}


def test_an_exception_undoes_the_transaction(store: Store, tenant: str) -> None:
    def attempt() -> None:
        with store.write(tenant, "test") as scope:
            patients.add(scope, name="Ada")
            scope.audit("patient.add", "patient:x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        attempt()
    with store.read(tenant) as scope:
        assert patients.listed(scope) == []


def test_moments_come_back_in_utc(store: Store, tenant: str) -> None:
    here = dt.timezone(dt.timedelta(hours=7))
    moment = dt.datetime(2026, 3, 1, 2, 30, tzinfo=here)
    store.clock = lambda: moment
    with store.write(tenant, "test") as scope:
        made = patients.add(scope, name="Ada").id
    with store.read(tenant) as scope:
        found = patients.get(scope, made).created_at
    assert found == moment
    assert found.tzinfo is dt.UTC


def test_a_patient_and_the_list_of_them(store: Store, tenant: str) -> None:
    with store.write(tenant, "test") as scope:
        made = [patients.add(scope, name=f"P{n}", age=n).id for n in range(12)]
    with store.read(tenant) as scope:
        assert [row.id for row in patients.listed(scope)] == made[:10]
        assert [row.id for row in patients.listed(scope, skip=10, limit=10)] == made[10:]
        assert patients.listed(scope, limit=-1) == []
        assert len(patients.listed(scope, skip=-(2**70), limit=2**70)) == 12
        assert patients.get(scope, made[3].upper()).age == 3
        for name in ("", "nope", "\0", "\ud800", made[0] + "0", 7):
            with pytest.raises(NotFound, match="Patient not found"):
                patients.get(scope, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [{"name": "a\0b"}, {"name": "\ud800"}, {"name": "Ada", "age": 2**31}, {"name": "Ada", "email": "\0"}],
)
def test_what_no_database_holds_is_the_clients_error(
    store: Store, tenant: str, values: dict[str, object]
) -> None:
    with pytest.raises(RequestError), store.write(tenant, "test") as scope:
        patients.add(scope, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload", [{"a": ["\0"]}, {"\0": 1}, {"a": float("nan")}, {"a": [[float("inf")]]}, {"a": "\udcff"}]
)
def test_documents_that_no_database_holds_are_refused(
    store: Store, tenant: str, payload: dict[str, object]
) -> None:
    with pytest.raises(RequestError), store.write(tenant, "test") as scope:
        cases.log(scope, "c", payload, by="me")


def test_a_deep_document_and_a_long_key_are_refused(store: Store, tenant: str) -> None:
    deep: object = 1
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(RequestError, match="deep"):
        check_value(deep, "it")
    for key in ("x" * 201, "\0"):
        with pytest.raises(RequestError), store.write(tenant, "test") as scope:
            cases.log(scope, key, {}, by="me")


def test_documents_come_back_as_they_were(store: Store, tenant: str) -> None:
    payload = {"n": 1.5, "big": 2**60, "text": "dermatologie ✓", "none": None, "list": [True, {"x": []}]}
    with store.write(tenant, "test") as scope:
        cases.log(scope, "c", payload, by="me")
    with store.read(tenant) as scope:
        assert cases.get(scope, "c").payload == payload


def test_numbers_go_on_when_the_clock_is_set_back(store: Store, tenant: str) -> None:
    now = [5_000_000_000]
    numbers = Numbers(clock=lambda: now[0])
    first = [numbers(), numbers()]
    now[0] = 0
    assert [*first, numbers()] == [5_000_000, 5_000_001, 5_000_002]
    # A new process, whose clock is far behind, goes on from the last row.
    with store.write(tenant, "test") as scope:
        scope.number = lambda: 2**60
        scans.add(scope, system="s2", owner="ada")
    again = Store(store.url)
    with again.write(tenant, "test") as scope:
        later = scans.add(scope, system="s2", owner="ada").id
        assert scans.history(scope)[0].id == later
    again.close()


def test_many_writers_at_once_lose_nothing(store: Store, tenant: str) -> None:
    failed: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for n in range(5):
                with store.write(tenant, "test") as scope:
                    cases.log(scope, f"{worker}-{n}", {"n": n}, by="me")
                    scope.audit("case.log", f"case:{worker}-{n}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with store.read(tenant) as scope:
        assert len({case.key for case in cases.listed(scope)}) == 60


def test_one_case_logged_by_many_at_once_is_one(store: Store, tenant: str) -> None:
    def write(worker: int) -> None:
        with store.write(tenant, "test") as scope:
            cases.log(scope, "same", {"worker": worker}, by="me")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read(tenant) as scope:
        assert len(cases.listed(scope)) == 1
        assert {entry.payload["worker"] for entry in cases.entries(scope, "same")} == set(range(8))


def test_a_tenant_that_several_ask_for_is_made_once(store: Store) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(unscoped.ensure_tenant(store, "new").id))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_a_second_writer_is_told_when_the_first_does_not_end(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.store.engine._WAIT_S", 0.05)
    tenant = tenant_of(sqlite_store, "clinic")
    with (
        sqlite_store.write(tenant, "test"),
        pytest.raises(Overloaded),
        sqlite_store.write(tenant, "test"),
    ):
        pass


def test_a_reader_does_not_write(store: Store, tenant: str) -> None:
    def attempt() -> None:
        with store.read(tenant) as scope:
            patients.add(scope, name="Ada")

    if store.is_sqlite:
        attempt()  # undone at the end
    else:
        with pytest.raises(StoreError):
            attempt()
    with store.read(tenant) as scope:
        assert patients.listed(scope) == []


def test_a_database_that_is_not_there() -> None:
    with pytest.raises(StoreError) as error:
        open_store("postgresql://nobody:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(error.value)
    with pytest.raises(StoreError):
        open_store("sqlite:////proc/none/gateway.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError):
        open_store(f"sqlite:///{tmp_path / 'x.db'}")


def test_one_name_twice_is_a_conflict(store: Store, tenant: str) -> None:
    with pytest.raises(Conflict):
        tenant_of(store, "clinic")
    store.check()


def test_no_error_quotes_a_patient(store: Store, tenant: str, caplog: pytest.LogCaptureFixture) -> None:
    """PostgreSQL quotes the whole row where a check fails."""
    caplog.set_level(0)
    for table, change in (("patients", "number = NULL"), ("scans", "status = 'x'")):
        with pytest.raises(RetidermError) as error, store.write(tenant, "test") as scope:  # noqa: PT012
            patient = patients.add(scope, name="Ada Lovelace")
            scans.add(scope, system="s2", owner="ada", patient_id=patient.id, notes="Ada Lovelace again")
            scope.session.execute(text(f"UPDATE {table} SET {change}"))
        told = "".join(traceback.format_exception(error.value))
        assert "Lovelace" not in told
        assert type(error.value) is Conflict
    assert "Lovelace" not in caplog.text


def test_the_file_is_its_owners(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'a' / 'x.db'}").close()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "x.db").stat().st_mode & 0o777 == 0o600


def test_documents_keep_their_order(store: Store, tenant: str) -> None:
    """A model's classes have one: readers are shown them in it, and count by it."""
    said = {"z": {"no_dr": 0.1, "mild": 0.2, "proliferative": 0.7}, "a": {}}
    with store.write(tenant, "test") as scope:
        cases.log(scope, "case-1", said, by="me")
    with store.read(tenant) as scope:
        found = cases.get(scope, "case-1").payload
    assert (list(found), list(found["z"])) == (["z", "a"], ["no_dr", "mild", "proliferative"])


def test_a_reader_sees_one_moment(store: Store, tenant: str) -> None:
    """Or an erasure between two of its queries leaves it with half of what belongs together."""
    with store.write(tenant, "test") as scope:
        patients.add(scope, name="before")
    with store.read(tenant) as scope:
        assert len(patients.listed(scope)) == 1
        with store.write(tenant, "test") as other:
            patients.add(other, name="meanwhile")
        scope.session.expire_all()
        assert len(patients.listed(scope)) == 1
    with store.read(tenant) as scope:
        assert len(patients.listed(scope)) == 2
