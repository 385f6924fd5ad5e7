"""Pages of lists while others write: no row lies between two of them, on PostgreSQL neither."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from data.errors import Overloaded
from serving.gateway.store import Store
from serving.gateway.store.repositories import patients
from serving.gateway.store.scope import Scope
from serving.gateway.systems.v1.common import Page, page_of, start_of
from tests.gateway_rows import tenant_of
from tests.gateway_servers import new_database

LIMIT = 3


@pytest.fixture
def two() -> Iterator[tuple[Store, Store, str]]:
    """Two processes' stores of one PostgreSQL, and a tenant."""
    url = new_database()
    one, other = Store(url), Store(url)
    yield one, other, tenant_of(one, "clinic")
    one.close()
    other.close()


def page(store: Store, tenant: str, after: str | None) -> Page[Any]:
    with store.read(tenant, paged=True) as scope:
        rows = patients.listed(scope, after=start_of(after), limit=LIMIT + 1)
        return page_of(scope, rows, LIMIT, lambda row: str(row.name), lambda row: int(row.number))


def everybody(store: Store, tenant: str, after: str | None = None) -> list[str]:
    found: list[str] = []
    while True:
        got = page(store, tenant, after)
        found += got.items
        if (after := got.next) is None:
            return found


def add(store: Store, tenant: str, *names: str) -> None:
    for name in names:
        with store.write(tenant, "test") as scope:
            patients.add(scope, name=name)


def test_who_commits_late_is_on_a_later_page(two: tuple[Store, Store, str]) -> None:
    one, other, tenant = two
    add(other, tenant, "a", "b")
    with ExitStack() as open_:
        scope = open_.enter_context(one.write(tenant, "late"))
        patients.add(scope, name="late")
        add(other, tenant, "c", "d", "e", "f")
        # It was there before c, and nobody may go on after c without it.
        first = page(other, tenant, None)
        assert first.items == ["a", "b"]
        with pytest.raises(Overloaded):
            page(other, tenant, first.next)
    assert everybody(other, tenant, first.next) == ["late", "c", "d", "e", "f"]


def test_a_last_page_has_all_that_is_there(two: tuple[Store, Store, str]) -> None:
    """After which nobody goes on: what is committed late is new to whoever looks again."""
    one, other, tenant = two
    with one.write(tenant, "late") as scope:
        patients.add(scope, name="late")
        add(other, tenant, "a", "b")
        assert (page(other, tenant, None).items, page(other, tenant, None).next) == (["a", "b"], None)
    assert everybody(other, tenant) == ["late", "a", "b"]


def test_what_is_undone_and_who_only_reads_hold_up_nobody(two: tuple[Store, Store, str]) -> None:
    one, other, tenant = two
    with suppress(ZeroDivisionError), one.write(tenant, "test") as scope:
        patients.add(scope, name="never")
        raise ZeroDivisionError
    with one.read(tenant) as scope:
        patients.listed(scope)
        add(other, tenant, *"abcdefg")
        assert everybody(other, tenant) == list("abcdefg")


def test_another_store_in_the_same_server_is_another_matter(two: tuple[Store, Store, str]) -> None:
    one, _, tenant = two
    elsewhere = Store(new_database())
    add(one, tenant, "a", "b")
    with elsewhere.write(tenant_of(elsewhere, "x"), "test") as scope:
        patients.add(scope, name="there")
        add(one, tenant, "c", "d", "e")
        assert everybody(one, tenant) == list("abcde")
    elsewhere.close()


def test_pages_while_many_write_miss_nobody(two: tuple[Store, Store, str]) -> None:
    one, other, tenant = two
    each, failed = 25, []

    def write(store: Store, who: int) -> None:
        try:
            for n in range(each):
                with store.write(tenant, "test") as scope:
                    patients.add(scope, name=f"{who}-{n}")
                    if n % 3 == 0:
                        patients.add(scope, name=f"{who}-{n}-too")
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(store, n)) for n, store in enumerate((one, other) * 3)]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    after: str | None = None
    while True:
        ended = not any(writer.is_alive() for writer in writers)
        try:
            got = page(other, tenant, after)
        except Overloaded:
            continue
        if got.next is not None:
            seen += got.items
            after = got.next
        elif ended:
            seen += got.items
            break
    assert failed == []
    with other.read(tenant) as scope:
        there = [str(row.name) for row in patients.listed(scope, limit=1000)]
    assert len(there) == 6 * (each + 9)
    assert seen == there


def test_a_server_whose_clock_was_set_back_hides_nothing_from_who_wrote_it(
    two: tuple[Store, Store, str],
) -> None:
    one, _, tenant = two
    # As if numbers had been given an hour from now.
    ahead = one._seeded().after(0) + 3_600_000_000
    one._seeded().after(ahead)
    add(one, tenant, *"abcde")
    assert everybody(one, tenant) == list("abcde")


@pytest.mark.parametrize(
    ("numbers", "horizon", "shown", "following"),
    [
        ((1, 2), None, [1, 2], None),
        ((1, 2), 2, [1, 2], None),
        ((1, 2, 3, 4), None, [1, 2, 3], "3"),
        ((1, 2, 3, 4), 3, [1, 2], "2"),
        ((1, 2, 3, 4), 9, [1, 2, 3], "3"),
        ((1, 2, 3, 3), None, [1, 2], "2"),
    ],
)
def test_where_a_page_ends(
    sqlite_store: Store, numbers: tuple[int, ...], horizon: int | None, shown: list[int], following: str
) -> None:
    with sqlite_store.read(tenant_of(sqlite_store, "x"), paged=True) as scope:
        assert isinstance(scope, Scope)
        assert scope.horizon is None
        scope.horizon = horizon
        got = page_of(scope, numbers, LIMIT, int, int)
        assert (got.items, got.next) == (shown, following)
        scope.horizon = 1
        if len(numbers) > LIMIT:
            with pytest.raises(Overloaded):
                page_of(scope, numbers, LIMIT, int, int)
