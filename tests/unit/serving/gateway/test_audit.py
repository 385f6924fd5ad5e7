"""The audit log: it only grows, and what was done to it shows."""

from __future__ import annotations

import datetime as dt
import threading
from itertools import pairwise

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from serving.gateway.store import Store
from serving.gateway.store.repositories import audit
from serving.gateway.store.repositories.audit import Head


@pytest.fixture
def logged(store: Store, tenant: str) -> str:
    for n in range(5):
        with store.write(tenant, f"actor {n}") as scope:
            scope.audit("thing.do", f"thing:{n}", n=n, what="é")
    return tenant


def problems(store: Store, tenant: str, kept: dict[str, Head] | None = None) -> list[str]:
    with store.read(tenant) as scope:
        return audit.verify(scope, kept)


def tamper(store: Store, *statements: str) -> None:
    """As somebody who owns the database could: the triggers off first."""
    with store.engine.begin() as connection:
        if store.is_sqlite:
            connection.execute(text("DROP TRIGGER audit_log_no_update"))
            connection.execute(text("DROP TRIGGER audit_log_no_delete"))
        else:
            connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.execute(text(statement))


def test_entries_follow_one_another(store: Store, logged: str) -> None:
    with store.read(logged) as scope:
        found = audit.entries(scope)
        assert [row.seq for row in found] == [1, 2, 3, 4, 5]
        assert all(later.prev == row.hash for row, later in pairwise(found))
        assert audit.data_of(found[2]) == {"n": 2, "what": "é"}
        assert [row.seq for row in audit.entries(scope, about="thing:3")] == [4]
        assert len(audit.entries(scope, action="thing.do", after=2, limit=2)) == 2
        assert audit.head(scope) == Head(5, found[-1].hash)
    assert problems(store, logged) == []


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_the_database_refuses_changes(store: Store, logged: str, statement: str) -> None:
    with pytest.raises(DBAPIError, match="only grows"), store.engine.begin() as connection:
        connection.execute(text(statement))
    if not store.is_sqlite:
        with pytest.raises(DBAPIError, match="only grows"), store.engine.begin() as connection:
            connection.execute(text("TRUNCATE audit_log"))
    assert problems(store, logged) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit_log SET actor = 'mallory' WHERE seq = 3", "entry 3 was altered"),
        ("UPDATE audit_log SET data = '{}' WHERE seq = 2", "entry 2 was altered"),
        ("UPDATE audit_log SET at = '2020-01-01 00:00:00' WHERE seq = 5", "entry 5 was altered"),
        ("DELETE FROM audit_log WHERE seq = 3", "entries 3 to 3 are missing"),
        ("DELETE FROM audit_log WHERE seq = 5", "the log ends at entry 4; the head knows entry 5"),
        ("UPDATE audit_heads SET seq = 4", "the head names another entry 4"),
        ("DELETE FROM audit_heads", "the head is behind the log's last entry, 5"),
    ],
)
def test_what_was_done_to_it_shows(store: Store, logged: str, statement: str, found: str) -> None:
    tamper(store, statement)
    assert found in problems(store, logged)


def test_a_log_that_was_written_anew_shows_against_a_head_kept_elsewhere(store: Store, logged: str) -> None:
    with store.read(logged) as scope:
        kept = {"the safe": audit.head(scope)}
    tamper(store, "DELETE FROM audit_log", "DELETE FROM audit_heads")
    for n in range(5):
        with store.write(logged, "mallory") as scope:
            scope.audit("thing.do", f"thing:{n}")
    assert problems(store, logged) == []
    assert problems(store, logged, kept) == ["the safe names another entry 5"]
    assert problems(store, logged, {"the safe": Head(9, "0" * 64)}) == [
        "the log ends at entry 5; the safe knows entry 9"
    ]


def test_a_clock_that_is_set_back_does_not_turn_it_round(store: Store, logged: str) -> None:
    store.clock = lambda: dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
    with store.write(logged, "late") as scope:
        scope.audit("thing.do", "thing:late")
    assert problems(store, logged) == []


def test_many_at_once_make_one_chain(store: Store, tenant: str) -> None:
    def write(worker: int) -> None:
        for n in range(4):
            with store.write(tenant, f"w{worker}") as scope:
                scope.audit("a", f"x:{n}")
                scope.audit("b", f"x:{n}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems(store, tenant) == []
    with store.read(tenant) as scope:
        assert audit.head(scope).seq == 48


def test_a_transaction_that_fails_logs_nothing(store: Store, logged: str) -> None:
    def attempt() -> None:
        with store.write(logged, "x") as scope:
            scope.audit("thing.do", "thing:9")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        attempt()
    with store.read(logged) as scope:
        assert audit.head(scope).seq == 5
