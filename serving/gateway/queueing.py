"""DBOS, which queues: an entry names a job's row and says "look at it now". All that is known of it is here.

PostgreSQL holds its tables beside ours, in the schema ``dbos``; SQLite in a file beside ours, since its one
writer at a time is for the rows that people wait for. It talks to that database and to nothing else.
"""

from __future__ import annotations

import datetime as dt
import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.errors import StoreError
from serving.gateway.store.engine import Store

#: From a tenant and a job's id to the work.
Run = Callable[[str, str], None]

_LOG = logging.getLogger("retiderm.gateway")
_POLL_S = 0.2
_AT_ONCE = 4
_POOL = 8
_KEEP = dt.timedelta(days=1)
_BATCH = 500

# DBOS is one a process: its workflow finds what runs now here.
_guard = threading.Lock()
_current: Queue | None = None
_workflow: Callable[[str, str], None] | None = None


class Queue:
    """The queues of one process, one for each kind of job. All of it blocks: keep it off the event loop."""

    def __init__(self, store: Store, kinds: Sequence[str], run: Run) -> None:
        self._store = store
        self._kinds = tuple(kinds)
        self.run = run

    def open(self) -> None:
        """Start to take entries.

        Raises:
            RuntimeError: this process has a queue already.
            StoreError: its tables can't be made or reached.
        """
        global _current
        with _guard:
            if _current is not None:
                raise RuntimeError("a process has one queue: stop the other gateway first")
            _current = self
        try:
            _launch(self._store, self._kinds)
        except Exception as error:
            self.close()
            # Without its words, which may hold the database's address.
            _LOG.error("the queue can't be opened: %s", type(error).__name__)
            raise StoreError(
                f"The queue's tables can't be made or reached ({type(error).__name__}).",
                hint="The database's user needs to make the schema 'dbos', SQLite's folder to be writable.",
            ) from None

    def put(self, name: str, kind: str, tenant: str, job_id: str) -> None:
        """Add an entry. ``name`` is taken once: the same again, from anybody, is the same entry."""
        from dbos import DBOS, SetWorkflowID

        assert _workflow is not None, "the queue was not opened"
        with SetWorkflowID(name):
            DBOS.enqueue_workflow(_queue_of(kind), _workflow, tenant, job_id)

    def tidy(self) -> int:
        """Remove entries older than a day, whatever became of them: rows say what is still to be done."""
        from dbos import DBOS

        before = (dt.datetime.now(dt.UTC) - _KEEP).isoformat()
        found = DBOS.list_workflows(end_time=before, limit=_BATCH, load_input=False, load_output=False)
        if found:
            DBOS.delete_workflows([entry.workflow_id for entry in found])
        return len(found)

    def close(self, wait_s: int = 0) -> None:
        """Take no more entries, and let those that run end for so long."""
        global _current
        from dbos import DBOS

        try:
            DBOS.destroy(workflow_completion_timeout_sec=wait_s)
        finally:
            with _guard:
                _current = None


def _launch(store: Store, kinds: Sequence[str]) -> None:
    global _workflow
    from dbos import DBOS, DBOSConfig
    from dbos._dbos import _get_dbos_instance

    # Its lines come in our form. A handler that is there keeps it from adding one of its own.
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    config: DBOSConfig = {
        "name": "retiderm",
        "system_database_url": _url(store),
        # DBOS leaves the work of other versions alone, and takes up the work of its own name: one version
        # for all, and a name that nobody had, since the rows' leases decide who works on what.
        "application_version": "1",
        "executor_id": uuid.uuid4().hex,
        "sys_db_pool_size": _POOL,
        # Nothing here waits for its notifications, which would hold a connection.
        "use_listen_notify": False,
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    DBOS(config=config)
    if _workflow is None:
        _workflow = DBOS.workflow(name="job")(_run)
    # A job of a kind that this gateway doesn't do is for another one.
    DBOS.listen_queues([_queue_of(kind) for kind in kinds])
    DBOS.launch()
    # By itself it would try for ever to write that an entry is done, so that no process could end while its
    # database is away. Here nothing is lost with an entry.
    _get_dbos_instance()._sys_db._retry_connection_errors = False
    for kind in kinds:
        DBOS.register_queue(_queue_of(kind), worker_concurrency=_AT_ONCE, polling_interval_sec=_POLL_S)


def _run(tenant: str, job_id: str) -> None:
    current = _current
    if current is not None:
        current.run(tenant, job_id)


def _queue_of(kind: str) -> str:
    return f"retiderm-{kind}"


def _url(store: Store) -> Any:
    if not store.is_sqlite:
        # DBOS's driver is another than ours; what stands in the address means the same to both.
        return store.url.set(drivername="postgresql").render_as_string(hide_password=False)
    path = Path(f"{store.url.database}.queue")
    path.touch(mode=0o600, exist_ok=True)
    # Kept in the file: readers don't wait for the writer, and an entry costs one write to the disk.
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    return f"sqlite:///{path}"
