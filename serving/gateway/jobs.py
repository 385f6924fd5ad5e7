"""Work that goes on after its request: DBOS queues it, the store's rows say how far it is.

The row (``jobs`` in the store) is the truth. A queue entry only says "look at this row now", so that an entry
that is lost or doubled does no harm: a row is claimed by one process, which renews its lease while it works.
A row whose process died is put to the queue again when its lease is over, by any gateway of the same store.

PostgreSQL holds DBOS's tables beside ours, in the schema ``dbos``. SQLite holds them in a file beside ours:
its one writer at a time is for the rows that people wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from data.errors import Conflict, NotFound, RetidermError
from serving.gateway.store import unscoped
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import jobs
from serving.gateway.store.tables import Job

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_LOG = logging.getLogger("retiderm.gateway")
_QUEUE = "retiderm-jobs"
_ACTOR = "jobs"
_LEASE_S = 30.0
_RENEW_S = 8.0
_LOOK_S = 5.0
_POLL_S = 0.2
_AT_ONCE = 4

#: Does one job's work, on a thread of the queue: the tenant, then the job's row.
Handler = Callable[[str, Job], None]


class Jobs:
    """The queue of one gateway; one a process, since DBOS is one a process."""

    def __init__(self, gateway: Gateway) -> None:
        self._store = gateway.store
        self._handlers: dict[str, Handler] = {}
        self._held: dict[tuple[str, str], int] = {}
        self._guard = threading.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def register(self, kind: str, handler: Handler) -> None:
        """Say who does the jobs of a kind. Before the start."""
        self._handlers[kind] = handler

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The application's event loop, for handlers that ask models."""
        assert self._loop is not None, "the queue was not started"
        return self._loop

    async def start(self) -> None:
        """Start the queue, if anybody has registered, and take up what waits."""
        self._loop = asyncio.get_running_loop()
        if not self._handlers:
            return
        await asyncio.to_thread(_launch, self)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let running jobs end for a few seconds; what is cut off goes on at the next start."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        await asyncio.to_thread(_destroy)

    def submit(self, tenant: str, job_id: str) -> None:
        """Put a job's row, which is written, to the queue. A queue that fails only delays it."""
        self._submit(tenant, job_id, "first")

    def _submit(self, tenant: str, job_id: str, look: str) -> None:
        try:
            # DBOS takes an id once: looks of one moment, by however many gateways, are one entry.
            _enqueue(f"{job_id}:{look}", tenant, job_id)
        except Exception as error:
            _LOG.warning("the job %s waits for the next look: %s", job_id, type(error).__name__)

    def execute(self, tenant: str, job_id: str) -> None:
        """Do a job, unless it is done or somebody else does it."""
        try:
            with self._store.write(tenant, _ACTOR) as scope:
                job = jobs.claim(scope, job_id, _LEASE_S)
        except (Conflict, NotFound):
            return
        handler = self._handlers.get(job.kind)
        with self._guard:
            self._held[tenant, job_id] = job.attempts
        error: str | None = None
        try:
            if handler is None:
                error = f"nobody does jobs of the kind {job.kind}"
            else:
                handler(tenant, job)
        except RetidermError as failed:
            error = failed.code
            _LOG.warning("the job %s failed: %s", job_id, failed.code)
        except Exception:
            error = "internal"
            _LOG.exception("the job %s failed", job_id)
        finally:
            with self._guard:
                self._held.pop((tenant, job_id), None)
        # Another process may have taken it over while this one slept.
        with contextlib.suppress(Conflict, NotFound), self._store.write(tenant, _ACTOR) as scope:
            jobs.finish(scope, job_id, job.attempts, error)

    async def _keep(self) -> None:
        """Renew what runs here, and queue again what nobody works on."""
        last = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await asyncio.to_thread(self._renew)
                if loop.time() - last >= _LOOK_S:
                    last = loop.time()
                    await asyncio.to_thread(self._look)
            except RetidermError as error:
                _LOG.warning("the queue can't reach the database: %s", error.code)
            await asyncio.sleep(min(_RENEW_S, _LOOK_S))

    def _renew(self) -> None:
        with self._guard:
            held = dict(self._held)
        for (tenant, job_id), attempt in held.items():
            with contextlib.suppress(Conflict, NotFound), self._store.write(tenant, _ACTOR) as scope:
                jobs.renew(scope, job_id, attempt, _LEASE_S)

    def _look(self) -> None:
        now = self._store.clock()
        moment = f"{int(now.timestamp() // _LEASE_S)}"
        for tenant in unscoped.all_tenants(self._store):
            with self._store.read(tenant.id, _ACTOR) as scope:
                waiting = jobs.waiting(scope, limit=100)
            for job in waiting:
                # One that was queued just now has its entry: this is for entries that were lost.
                if job.status == "running" or (now - job.created_at).total_seconds() > _LEASE_S:
                    self._submit(tenant.id, job.id, moment)


# DBOS is one a process: its workflow finds the queue that runs now here.
_current: Jobs | None = None
_workflow: Callable[[str, str], None] | None = None


def _launch(queue: Jobs) -> None:
    global _current, _workflow
    from dbos import DBOS, DBOSConfig

    if _current is not None:
        raise RuntimeError("a process has one queue: stop the other gateway first")
    # A fixed version, since DBOS leaves the work of other versions alone, and a name of one's own, since it
    # takes up the work of its name: the leases decide who works on what.
    config: DBOSConfig = {
        "name": "retiderm",
        "system_database_url": _queue_url(queue._store),
        "application_version": "1",
        "executor_id": uuid.uuid4().hex,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    if _workflow is None:
        _workflow = DBOS.workflow(name="job")(_run)
    _current = queue
    DBOS.launch()
    DBOS.register_queue(_QUEUE, worker_concurrency=_AT_ONCE, polling_interval_sec=_POLL_S)


def _destroy() -> None:
    global _current
    from dbos import DBOS

    DBOS.destroy(workflow_completion_timeout_sec=5)
    _current = None


def _enqueue(name: str, tenant: str, job_id: str) -> None:
    from dbos import DBOS, SetWorkflowID

    assert _workflow is not None
    with SetWorkflowID(name):
        DBOS.enqueue_workflow(_QUEUE, _workflow, tenant, job_id)


def _run(tenant: str, job_id: str) -> None:
    if _current is not None:
        _current.execute(tenant, job_id)


def _queue_url(store: Store) -> Any:
    if store.is_sqlite:
        return f"sqlite:///{store.url.database}.queue"
    return store.url.set(drivername="postgresql").render_as_string(hide_password=False)
