"""Work that goes on after its request: a queue starts it, the store's rows say how far it is.

The row (``jobs`` in the store) is the truth. A queue's entry only says "look at this row now", so that one
that is lost or doubled does no harm: a row is claimed by one process, which renews its lease while it works.
A row whose process died is put to the queue again when its lease is over, by any gateway of the same store.
Whatever a handler writes, it writes with :meth:`Jobs.still_ours` in the same transaction, which fails where
another process has taken the job over meanwhile.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import Counter

from data.errors import Conflict, NotFound, Overloaded, RetidermError, StoreError
from serving.gateway.queueing import Queue
from serving.gateway.store import unscoped
from serving.gateway.store.repositories import jobs
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Job

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway

_LOG = logging.getLogger("retiderm.gateway")
_ACTOR = "jobs"
#: Begun so often and never ended: it takes its processes with it.
_MOST_ATTEMPTS = 5
_LOOK_S = 5.0
_TIDY_S = 3600.0
#: At a stop, what runs may end for so long; then it is left to the next process.
_GRACE_S = 3.0
_T = TypeVar("_T")

JOBS = Counter("retiderm_gateway_jobs", "Jobs that ended here, by kind and how", ["kind", "outcome"])

#: Does one job's work, on a thread of the queue: the tenant, then the job's row.
Handler = Callable[[str, Job], None]
#: Says where people look that a job came to nothing: the tenant, the row, an error's code.
GiveUp = Callable[[str, Job, str], None]


class Interrupted(Exception):
    """The gateway stops: the job goes on in another process, or at the next start."""


class Superseded(Exception):
    """Another process has the job since this one slept, or what it was about is gone: nothing to be done."""


@dataclass(frozen=True, slots=True)
class _Kind:
    handle: Handler
    give_up: GiveUp


class Jobs:
    """The jobs of one gateway. Handlers may call :meth:`pause`, :meth:`on_loop`, :meth:`still_ours`."""

    def __init__(self, gateway: Gateway) -> None:
        self._store = gateway.store
        self._lease_s = gateway.settings.job_lease_s
        self._kinds: dict[str, _Kind] = {}
        #: Tenant, job and attempt of what runs here.
        self._held: set[tuple[str, str, int]] = set()
        self._looked: set[str] = set()
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: Queue | None = None
        self._hand: _Hand | None = None

    def register(self, kind: str, handler: Handler, give_up: GiveUp) -> None:
        """Say who does the jobs of a kind. Before the start.

        ``give_up`` is called where the handler failed in a way that nobody foresaw, or the job was begun too
        often without an end.
        """
        self._kinds[kind] = _Kind(handler, give_up)

    async def start(self) -> None:
        """Start the queue, if anybody has registered, and take up what waits."""
        self._loop = asyncio.get_running_loop()
        if not self._kinds:
            return
        self._queue = Queue(self._store, tuple(self._kinds), self.execute)
        await asyncio.to_thread(self._queue.open)
        self._hand = _Hand(self._queue)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let running jobs end for a few seconds; what is cut off goes on elsewhere, or at the next start."""
        if self._keeper is None or self._queue is None or self._hand is None:
            return
        self._deadline = time.monotonic() + _GRACE_S
        self._stopping.set()
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._hand.stop()
        with self._guard:
            busy = bool(self._held)
        await asyncio.to_thread(self._queue.close, int(_GRACE_S) + 2 if busy else 0)

    def submit(self, tenant: str, job: Job) -> None:
        """Put a job's row, which is written, to the queue. Returns at once; a failure only delays the job."""
        if self._hand is not None:
            self._hand.put(f"{job.id}:{job.attempts}:0", job.kind, tenant, job.id)

    def pause(self, seconds: float) -> None:
        """Sleep, for a handler. ``Interrupted`` when the gateway stops."""
        if self._stopping.wait(seconds):
            raise Interrupted

    def on_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have the application's event loop do something, for a handler, and wait for it.

        Raises:
            Interrupted: the gateway stops and can't wait for it any longer.
        """
        assert self._loop is not None, "the queue was not started"
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        while True:
            try:
                return future.result(timeout=0.2)
            except (TimeoutError, concurrent.futures.CancelledError):
                if future.done() and not future.cancelled():
                    raise
                if future.cancelled() or time.monotonic() > self._deadline:
                    future.cancel()
                    raise Interrupted from None

    def still_ours(self, scope: Scope, job: Job) -> None:
        """For a handler, in the transaction that writes what it found: nobody else has the job, nor will.

        Raises:
            Superseded: somebody has. Nothing of the transaction may be written.
        """
        try:
            jobs.renew(scope, job.id, job.attempts, self._lease_s)
        except (Conflict, NotFound):
            raise Superseded from None

    def execute(self, tenant: str, job_id: str) -> None:
        """Do a job, unless it is done or somebody else does it. Raises nothing."""
        if self._stopping.is_set():
            return
        try:
            with self._store.write(tenant, _ACTOR) as scope:
                job = jobs.claim(scope, job_id, self._lease_s)
        except (Conflict, NotFound):
            return
        except RetidermError as error:
            _LOG.warning("the job %s waits: %s", job_id, error.code)
            return
        held = (tenant, job_id, job.attempts)
        with self._guard:
            self._held.add(held)
        try:
            self._do(tenant, job)
        except Interrupted:
            self._release(tenant, job, "interrupted")
        except Exception as error:
            # The database is away, mostly, and what the job came to can't be written.
            self._release(tenant, job, error.code if isinstance(error, RetidermError) else "internal")
        finally:
            with self._guard:
                self._held.discard(held)

    def _do(self, tenant: str, job: Job) -> None:
        kind = self._kinds[job.kind]
        outcome, error = "done", None
        if job.attempts > _MOST_ATTEMPTS:
            outcome = error = "gave_up"
            _LOG.error("the job %s was begun %d times and never ended", job.id, job.attempts - 1)
        else:
            try:
                kind.handle(tenant, job)
            except (Interrupted, StoreError, Overloaded):
                raise
            except Superseded:
                outcome = "superseded"
            except Exception:
                outcome = error = "internal"
                _LOG.exception("the job %s failed", job.id)
        if error is not None:
            kind.give_up(tenant, job, error)
        JOBS.labels(job.kind, outcome).inc()
        with contextlib.suppress(Conflict, NotFound), self._store.write(tenant, _ACTOR) as scope:
            jobs.finish(scope, job.id, job.attempts, error)

    def _release(self, tenant: str, job: Job, why: str) -> None:
        """Give the job back. Where that fails too, its lease runs out."""
        JOBS.labels(job.kind, "released").inc()
        _LOG.info("the job %s is given back: %s", job.id, why)
        try:
            with self._store.write(tenant, _ACTOR) as scope:
                jobs.release(scope, job.id, job.attempts)
            if self._stopping.is_set() and self._queue is not None:
                # For the other gateways, now: their next look may be later.
                self._queue.put(f"{job.id}:{job.attempts}:0", job.kind, tenant, job.id)
        except Exception as error:
            _LOG.warning("the job %s waits for its lease to end: %s", job.id, type(error).__name__)

    async def _keep(self) -> None:
        """Renew what runs here, and queue again what nobody works on."""
        loop = asyncio.get_running_loop()
        first: str | None = f"start-{uuid.uuid4().hex}"
        looked = tidied = -_TIDY_S
        while True:
            try:
                await asyncio.to_thread(self._renew)
                if loop.time() - looked >= min(_LOOK_S, self._lease_s / 2):
                    looked = loop.time()
                    await asyncio.to_thread(self._look, first)
                    first = None
                if loop.time() - tidied >= _TIDY_S:
                    tidied = loop.time()
                    assert self._queue is not None
                    await asyncio.to_thread(self._queue.tidy)
            except RetidermError as error:
                _LOG.warning("the jobs can't be looked after: %s", error.code)
            except Exception as error:
                _LOG.warning("the jobs can't be looked after: %s", type(error).__name__)
            await asyncio.sleep(min(_LOOK_S, self._lease_s / 4))

    def _renew(self) -> None:
        with self._guard:
            held = list(self._held)
        for tenant, job_id, attempt in held:
            with contextlib.suppress(Conflict, NotFound), self._store.write(tenant, _ACTOR) as scope:
                jobs.renew(scope, job_id, attempt, self._lease_s)

    def _look(self, first: str | None) -> None:
        """Queue what waits. At a start (``first``) all of it; later what must have lost its entry."""
        assert self._hand is not None
        looked, failed = set(), self._hand.take_failed()
        for tenant in unscoped.all_tenants(self._store):
            with self._store.read(tenant.id, _ACTOR) as scope:
                waiting = [job for job in jobs.waiting(scope) if job.kind in self._kinds]
            for job in waiting:
                look = first or self._look_of(job, self._store.clock())
                if look is None:
                    continue
                name = f"{job.id}:{job.attempts}:{look}"
                looked.add(name)
                # The queue would take the name once anyway, but ask its database each time.
                if name not in self._looked or name in failed:
                    self._hand.put(name, job.kind, tenant.id, job.id)
        self._looked = looked

    def _look_of(self, job: Job, now: dt.datetime) -> str | None:
        """The name of a look, the same in every gateway: one when the lease is over, then at twice the time,
        at four times …, so that a long queue isn't made longer by them. None while it is too early."""
        since = job.lease_until if job.status == "running" else (job.started_at or job.created_at)
        assert since is not None
        waited = int((now - since).total_seconds() // self._lease_s)
        if waited < 1 and job.status == "queued":
            return None
        return str(1 + max(0, waited).bit_length())


class _Hand:
    """Puts entries to the queue on a thread of its own: no request waits for the queue's database."""

    def __init__(self, queue_: Queue) -> None:
        self._queue = queue_
        self._failed: set[str] = set()
        self._items: queue.SimpleQueue[tuple[str, str, str, str] | None] = queue.SimpleQueue()
        # A daemon: it may hang on a database that is away, and nothing is lost with it.
        self._thread = threading.Thread(target=self._work, name="jobs-hand", daemon=True)
        self._thread.start()

    def put(self, name: str, kind: str, tenant: str, job_id: str) -> None:
        self._items.put((name, kind, tenant, job_id))

    def take_failed(self) -> set[str]:
        """The entries that could not be put since it was asked last."""
        found, self._failed = self._failed, set()
        return found

    def stop(self) -> None:
        self._items.put(None)
        self._thread.join(timeout=1)

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                self._queue.put(*item)
            except Exception as error:
                self._failed.add(item[0])
                _LOG.warning("the job %s waits for the next look: %s", item[3], type(error).__name__)
