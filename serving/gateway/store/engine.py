"""Opening the database: SQLite or PostgreSQL, behind one class."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import Engine, NullPool, create_engine, event, func, select, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from data.errors import NotFound, Overloaded, StoreError, UsageError

from . import faults
from .numbers import Announced, Numbers, horizon
from .repositories import audit
from .scope import Scope, TenantSession
from .tables import Base, Tenant
from .types import as_id

_WAIT_S = 10.0
#: How long who waits for a lock sleeps before it looks again.
_LOOK_S = 0.02
_T = TypeVar("_T")


def utc_now() -> dt.datetime:
    """Now, in UTC."""
    return dt.datetime.now(dt.UTC)


def database_url(text: str) -> URL:
    """What a configuration names as the database.

    Takes ``sqlite:///path``, ``postgresql://…`` and the older ``postgres://…``; a bare path is SQLite's.

    Raises:
        UsageError: it is neither.
    """
    if "://" not in text:
        text = f"sqlite:///{Path(text).expanduser()}"
    if text.startswith("postgres://"):
        text = "postgresql://" + text.removeprefix("postgres://")
    hint = "It is sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME."
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Never with the text itself: it may hold a password.
        raise UsageError("The database's URL can't be read.", hint=hint) from None
    kind = url.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise UsageError(f"A database of the kind {kind!r} is not known.", hint=hint)
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("SQLite needs a file: what is in memory is gone with the process.", hint=hint)
    return url.set(drivername="postgresql+psycopg2") if kind == "postgresql" else url


class Store:
    """The database. Cheap transactions by :meth:`write` and :meth:`read`; safe to share between threads.

    Use :func:`open_store`, which also brings the tables up to date.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        clock: Callable[[], dt.datetime] = utc_now,
        pool: int = 20,
    ) -> None:
        self.url = url if isinstance(url, URL) else database_url(url)
        self.clock = clock
        self.engine = _engine(self.url, pool)
        self._apart = self.engine if self.is_sqlite else _server(self.url, poolclass=NullPool)
        # A reader sees one moment, as SQLite's do by themselves: what an erasure takes between two of its
        # queries would be missing in the second.
        whole = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._read = self.engine.execution_options(retiderm_read=True, postgresql_readonly=True, **whole)
        # SQLite has one writer at a time. In this process they queue here, in order and asleep; its own way
        # is to try again after pauses, which starves some under load.
        self._writer = threading.Lock() if self.is_sqlite else None
        self._numbers: Numbers | None = None
        self._once = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def write(self, tenant: str, actor: str) -> Iterator[Scope]:
        """A transaction of a tenant that may write: on disk when the block ends, undone by an exception.

        Don't open one inside another, and keep slow things (models, image stores) outside.

        Raises:
            StoreError: the database can't be reached, or gave up. Nothing was written.
            StoreFull: no room is left.
            Conflict: the database refused a row, since another one is there already.
            Overloaded: other transactions did not end for ten seconds.
        """
        with self._alone(), self._scope(self.engine, tenant, actor) as scope:
            yield scope
            scope.session.flush()
            audit.write_entries(scope)
            scope.session.commit()
        for work in scope.afterwards:
            work(self)

    @contextlib.contextmanager
    def read(self, tenant: str, actor: str = "", *, paged: bool = False) -> Iterator[Scope]:
        """A transaction of a tenant that only reads. Raises :class:`StoreError` as :meth:`write` does.

        ``paged``: its rows are a page, after which another begins; the scope then has a horizon.
        """
        # Asked before: what ends between the two is seen by the second.
        settled = self._horizon() if paged and not self.is_sqlite else None
        with self._scope(self._read, tenant, actor) as scope:
            scope.horizon = settled
            yield scope

    @contextlib.contextmanager
    def unscoped(self, *, write: bool = False) -> Iterator[Session]:
        """A transaction of no tenant: for ``unscoped.py`` only, whose few functions a test names."""
        alone = self._alone() if write else contextlib.nullcontext()
        bind = self.engine if write else self._read
        with alone, faults.translated(), Session(bind, expire_on_commit=False) as session:
            yield session
            if write:
                session.commit()

    def check(self) -> None:
        """Ask the database something.

        Raises:
            StoreError: it does not answer.
        """
        with faults.translated(), self._read.connect() as connection:
            connection.execute(text("SELECT 1"))

    def settle(self) -> None:
        """Take what was deleted out of SQLite's log of changes too, unless somebody reads just now.

        PostgreSQL does as much by itself, when it vacuums.
        """
        if not self.is_sqlite:
            return
        with faults.translated():
            connection = self.engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

    @contextlib.contextmanager
    def alone(self, name: str, *, wait_s: float = 0.0) -> Iterator[bool]:
        """Whether nobody else of the store, in any process, does what has that name, while the block lasts.

        Nobody waits, or ``wait_s`` at most. On PostgreSQL it is an advisory lock of a connection of its own,
        which is in no transaction: it ends with its process and hinders no vacuum. On SQLite it is the lock
        of a file beside the database's.

        Raises:
            StoreError: the database can't be reached, or the file can't be made.
        """
        with self._file_lock(name, wait_s) if self.is_sqlite else self._server_lock(name, wait_s) as got:
            yield got

    @contextlib.contextmanager
    def _server_lock(self, name: str, wait_s: float) -> Iterator[bool]:
        key = int.from_bytes(hashlib.sha256(f"retiderm {name}".encode()).digest()[:8], signed=True)
        # Not of the pool: who waits here would be in the way of the one that is waited for, and a lock that
        # could not be given back would live on in it.
        with faults.translated():
            connection = self._apart.connect().execution_options(isolation_level="AUTOCOMMIT")

        def look() -> bool:
            with faults.translated():
                return bool(connection.scalar(select(func.pg_try_advisory_lock(key))))

        try:
            got = _within(wait_s, look)
            yield got
            if got:
                # By its end the connection gives it back too, but a moment later.
                with contextlib.suppress(SQLAlchemyError):
                    connection.execute(select(func.pg_advisory_unlock(key)))
        finally:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()

    @contextlib.contextmanager
    def _file_lock(self, name: str, wait_s: float) -> Iterator[bool]:
        path = Path(f"{self.url.database}.{name}.lock")
        try:
            file = _within(wait_s, lambda: _locked(path))
        except OSError as error:
            raise StoreError(f"The file of a lock can't be made: {error.strerror}.") from error
        if file is None:
            yield False
            return
        with file:
            try:
                yield True
            finally:
                # While it is ours: whoever opened it meanwhile sees that it is no longer the one.
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Let all connections go."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=_WAIT_S):
            raise Overloaded("The database is busy: other writes did not end.", hint="Ask again later.")
        try:
            yield
        finally:
            self._writer.release()

    @contextlib.contextmanager
    def _scope(self, bind: Engine, tenant: str, actor: str) -> Iterator[Scope]:
        known = as_id(tenant)
        if known is None:
            raise NotFound("There is no such tenant.")
        numbers = self._seeded()
        with (
            faults.translated(),
            TenantSession(bind, expire_on_commit=False, tenant=known) as session,
        ):
            announced = bind is self.engine and not self.is_sqlite
            number = Announced(numbers, session) if announced else numbers
            yield Scope(session, known, actor, self.clock(), number)

    def _horizon(self) -> int:
        last = self._seeded().last
        with faults.translated(), self._read.connect() as connection:
            return horizon(connection, last)

    def _seeded(self) -> Numbers:
        """The numbers, which go on from the last one in the database."""
        if self._numbers is None:
            with self._once, faults.translated():
                if self._numbers is None:
                    self._numbers = Numbers(self._last_number())
        return self._numbers

    def _last_number(self) -> int:
        numbered = [m.class_ for m in Base.registry.mappers if "number" in m.columns]
        last = 0
        with Session(self._read) as session:
            for tenant in session.scalars(select(Tenant.id)).all():
                # By tenant, so that an index answers.
                for table in numbered:
                    found = select(func.max(table.number)).where(table.tenant_id == tenant)
                    last = max(last, session.scalar(found) or 0)
        return last


def open_store(url: str | URL, **options: Any) -> Store:
    """A store whose tables are there and up to date.

    Raises:
        StoreError: the database can't be reached, or is of a newer version than this program.
    """
    from .migrate import upgrade

    store = Store(url, **options)
    try:
        upgrade(store)
    except BaseException:
        store.close()
        raise
    return store


def _engine(url: URL, pool: int) -> Engine:
    try:
        if url.get_backend_name() == "sqlite":
            assert url.database is not None
            path = Path(url.database)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Its owner's only; SQLite gives its other two files the same mode.
            path.touch(mode=0o600, exist_ok=True)
            engine = create_engine(
                url, pool_size=pool, max_overflow=0, pool_timeout=_WAIT_S, hide_parameters=True
            )
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        return _server(
            url,
            pool_size=pool,
            max_overflow=0,
            pool_timeout=_WAIT_S,
            # A server that was restarted leaves dead connections in the pool: each is tried before its use.
            pool_pre_ping=True,
        )
    except OSError as error:
        raise StoreError(f"The database's file can't be made: {error.strerror}.") from error
    except (NoSuchModuleError, SQLAlchemyError) as error:
        raise StoreError(f"The database can't be opened: {error}.") from error


def _server(url: URL, **pool: Any) -> Engine:
    return create_engine(
        url,
        # Values are patients': no error and no log line shows them.
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "application_name": "retiderm"},
        **pool,
    )


def _within(wait_s: float, look: Callable[[], _T]) -> _T:
    """What ``look`` gives as soon as that is something, or after so many seconds."""
    until = time.monotonic() + wait_s
    while not (found := look()) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return found


def _locked(path: Path) -> IO[str] | None:
    """The file of that name, open and locked; None where another has it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        file.close()
        raise
    # Held, or removed by the one that held it.
    file.close()
    return None


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # The driver's own BEGINs come late and not before schema changes: ours are below.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(_WAIT_S * 1000)}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # With NORMAL, the last commits before a power cut are lost in WAL mode: we have acknowledged them.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # What was erased shall not stay readable in free pages of the file.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read = connection.get_execution_options().get("retiderm_read", False)
    # A reader that becomes a writer can fail with SQLITE_BUSY at once: writers take the lock at the start.
    connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")
