"""Bringing the tables up to date: Alembic, run from inside the package, under a lock, all or nothing."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import Connection

from data.errors import StoreError

from . import faults
from .engine import Store

# Any number will do, as long as nobody else's lock has it.
_PG_LOCK = 7248361


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; there is no ini file."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    found.attributes["connection"] = connection
    return found


def newest() -> str:
    """The revision that this program expects."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None
    return head


def current(store: Store) -> str | None:
    """The revision that the database is at; None for an empty one."""
    # As a reader, which doesn't wait for a writer.
    reader = store.engine.execution_options(retiderm_read=True)
    with faults.translated(), reader.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(store: Store, revision: str = "head") -> None:
    """Bring the tables up to date, in one transaction: a kill leaves them as they were.

    Processes that start at once wait for one another.

    Raises:
        StoreError: the database is of a newer version than this program, or can't be reached.
    """
    # Most starts find nothing to do: those take no lock.
    if revision == "head" and current(store) == newest():
        return
    with _lock(store), faults.translated(), store.engine.begin() as connection:
        if not store.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PG_LOCK})
        try:
            command.upgrade(config(connection), revision)
        except CommandError as error:
            raise StoreError(
                f"The database's version is not one that this program knows: {error}.",
                hint="It was written by a newer version: install that one, or restore a backup.",
            ) from error


@contextlib.contextmanager
def _lock(store: Store) -> Iterator[None]:
    """One process at a time, for SQLite, whose own lock would be waited for by trying again only."""
    if not store.is_sqlite:
        yield
        return
    assert store.url.database is not None
    with Path(f"{store.url.database}.migration").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
