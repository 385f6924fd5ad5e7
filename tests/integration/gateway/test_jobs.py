"""Jobs on both databases: done once, whoever dies; given back at a stop; ended when they come to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from data.errors import StoreError, UsageError
from serving.gateway import queueing
from serving.gateway.gateway import Gateway
from serving.gateway.jobs import Interrupted, Jobs
from serving.gateway.settings import Settings
from serving.gateway.store import Scope, Store
from serving.gateway.store.repositories import jobs, predictions, scans
from serving.gateway.store.tables import Job
from tests.faces import portrait
from tests.gateway_live import Live, live_gateway, live_models
from tests.gateway_rows import tenant_of
from tests.gateway_scans import BASE, begin, ended, send
from tests.gateway_servers import new_database, postgres
from tests.integration.serving.harness import Servers
from tests.profiles import jpeg

NOWHERE = "http://127.0.0.1:9"
SELFIE = jpeg(portrait(320))
LEASE_S = 1.0


@dataclasses.dataclass
class Bench:
    """A gateway's jobs on a database, and what became of them."""

    settings: Settings
    gateway: Gateway
    tenant: str
    seen: Counter[str] = dataclasses.field(default_factory=Counter)
    given_up: dict[str, str] = dataclasses.field(default_factory=dict)
    now: dt.datetime | None = None

    def stop_clock(self) -> None:
        """From now on its time is what a test says: no lease ends because the machine is busy."""
        self.now = self.store.clock()
        self.store.clock = lambda: self.now

    def passes(self, seconds: float) -> None:
        """So much time, on a clock that stands."""
        assert self.now is not None
        self.now += dt.timedelta(seconds=seconds)

    @property
    def jobs(self) -> Jobs:
        return self.gateway.jobs

    @property
    def store(self) -> Store:
        return self.gateway.store

    def does(self, kind: str, work: Callable[[Job], None] = lambda job: None) -> None:
        def handle(tenant: str, job: Job) -> None:
            assert tenant == self.tenant
            self.seen[job.id] += 1
            work(job)

        def give_up(tenant: str, job: Job, code: str) -> None:
            self.given_up[job.id] = code

        self.jobs.register(kind, handle, give_up)

    def add(self, kind: str = "thing", n: int = 1, **values: Any) -> list[Job]:
        """Rows, which nobody has put to the queue."""
        with self.store.write(self.tenant, "test") as scope:
            rows = [jobs.add(scope, kind, "scan:1") for _ in range(n)]
            for row in rows:
                for name, value in values.items():
                    setattr(row, name, value)
            return rows

    def row(self, job: Job) -> Job:
        with self.store.read(self.tenant) as scope:
            return jobs.get(scope, job.id)

    async def ended(self, *rows: Job, timeout_s: float = 180) -> list[Job]:
        """The rows, when all of them are done or failed."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = [await asyncio.to_thread(self.row, job) for job in rows]
            if all(job.status in ("done", "failed") for job in found):
                return found
            assert time.monotonic() < deadline, [(job.status, job.attempts) for job in found]
            await asyncio.sleep(0.05)

    async def given_back(self, job: Job, times: int) -> None:
        """Wait until it was begun, and given back, so many times at least.

        More where the first look of all has queued it as well as whoever added it: that one comes at once.
        """
        await self.until(lambda: self.seen[job.id] >= times)
        await self.until(lambda: self.row(job).status != "running")

    async def until(self, true: Callable[[], Any], timeout_s: float = 180) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.jobs.start()
        try:
            yield
        finally:
            await self.jobs.stop()

    def again(self) -> Bench:
        """Another gateway on the same database."""
        return bench_of(self.settings, self.tenant)


def bench_of(settings: Settings, tenant: str | None = None) -> Bench:
    gateway = Gateway(settings)
    return Bench(settings, gateway, tenant or tenant_of(gateway.store, "clinic"))


SLOW_SERVER = pytest.param("postgresql", marks=pytest.mark.slow)


@pytest.fixture(params=["sqlite", SLOW_SERVER])
def patient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """With leases that don't end while a test runs, however busy the machine is."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}" if request.param == "sqlite" else new_database()
    found = bench_of(Settings(database=url, storage=str(tmp_path / "images"), job_lease_s=600))
    yield found
    found.store.close()


@pytest.fixture
def bench(patient: Bench) -> Iterator[Bench]:
    """With leases that end soon, by a clock that stands until a test moves it."""
    found = bench_of(dataclasses.replace(patient.settings, job_lease_s=LEASE_S), patient.tenant)
    found.stop_clock()
    yield found
    found.store.close()


def test_each_job_is_done_once(patient: Bench) -> None:
    async def work() -> None:
        patient.does("thing")
        async with patient.running():
            rows = patient.add(n=30)
            threads = [
                threading.Thread(target=patient.jobs.submit, args=(patient.tenant, job))
                for job in rows
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            found = await patient.ended(*rows)
        assert all((job.status, job.attempts, job.error) == ("done", 1, None) for job in found)
        assert all(job.lease_until is None and job.finished_at is not None for job in found)
        assert patient.seen == Counter({job.id: 1 for job in rows})

    asyncio.run(work())


def test_a_job_whose_entry_was_lost_is_found_by_its_row(bench: Bench) -> None:
    async def work() -> None:
        bench.does("thing")
        (before,) = bench.add()
        async with bench.running():
            (during,) = bench.add()
            await bench.ended(before)
            bench.passes(1.5 * LEASE_S)
            await bench.ended(during)
        assert bench.seen == Counter({before.id: 1, during.id: 1})

    asyncio.run(work())


def test_a_job_of_a_process_that_died_is_begun_again(bench: Bench) -> None:
    async def work() -> None:
        bench.does("thing")
        now = bench.store.clock()
        dead, alive = (
            bench.add(
                status="running", attempts=1, started_at=now, lease_until=now + dt.timedelta(seconds=s)
            )[0]
            for s in (-1, 3600)
        )
        async with bench.running():
            (found,) = await bench.ended(dead)
            assert (found.status, found.attempts) == ("done", 2)
            bench.passes(2 * LEASE_S)
            await asyncio.sleep(2 * LEASE_S)
            assert bench.seen == Counter({dead.id: 1})
            assert bench.row(alive).status == "running"

    asyncio.run(work())


def test_a_lease_is_renewed_for_as_long_as_the_work_takes(bench: Bench) -> None:
    async def work() -> None:
        def take_long(job: Job) -> None:
            until = bench.row(job).lease_until
            for _ in range(5):
                bench.passes(0.7 * LEASE_S)
                while (now := bench.row(job).lease_until) == until:
                    time.sleep(0.02)
                until = now

        bench.does("thing", take_long)
        async with bench.running():
            (job,) = bench.add()
            bench.jobs.submit(bench.tenant, job)
            (found,) = await bench.ended(job)
        assert (found.status, found.attempts) == ("done", 1)

    asyncio.run(work())


def test_what_nobody_foresaw_ends_the_job_and_says_so(
    patient: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(job: Job) -> None:
        raise ValueError("a mistake of ours")

    async def work() -> None:
        patient.does("thing", fail)
        async with patient.running():
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            (found,) = await patient.ended(job)
        assert (found.status, found.error, found.attempts) == ("failed", "internal", 1)
        assert patient.given_up == {job.id: "internal"}

    asyncio.run(work())
    assert "a mistake of ours" in caplog.text


def test_a_job_that_takes_its_processes_with_it_is_given_up(patient: Bench) -> None:
    async def work() -> None:
        patient.does("thing")
        now = patient.store.clock()
        (job,) = patient.add(status="running", attempts=5, started_at=now, lease_until=now)
        async with patient.running():
            (found,) = await patient.ended(job)
        assert (found.status, found.error) == ("failed", "gave_up")
        assert patient.given_up == {job.id: "gave_up"}
        assert not patient.seen

    asyncio.run(work())


def test_a_job_whose_database_went_away_is_tried_again(bench: Bench) -> None:
    def work_of(job: Job) -> None:
        if job.attempts < 3:
            raise StoreError("away")

    async def work() -> None:
        bench.does("thing", work_of)
        async with bench.running():
            (job,) = bench.add()
            bench.jobs.submit(bench.tenant, job)
            for times in (1, 2):
                await bench.given_back(job, times)
                bench.passes(1.5 * LEASE_S)
            (found,) = await bench.ended(job)
        assert (found.status, found.attempts) == ("done", 3)

    asyncio.run(work())


def test_only_who_holds_a_job_may_write(patient: Bench) -> None:
    """This one slept past its lease, and another process has begun the job."""
    reached: list[str] = []

    def sleep(job: Job) -> None:
        with patient.store.write(patient.tenant, "another") as scope:
            jobs.get(scope, job.id).attempts += 1
        with patient.store.write(patient.tenant, "jobs") as scope:
            patient.jobs.still_ours(scope, job)
            reached.append(job.id)

    async def work() -> None:
        patient.does("thing", sleep)
        async with patient.running():
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            await patient.until(lambda: patient.seen[job.id])
            await asyncio.sleep(0.3)
            # It is the other one's to end.
            assert patient.row(job).status == "running"
        assert not reached
        assert not patient.given_up

    asyncio.run(work())


def test_a_stop_gives_the_job_back_and_the_next_start_ends_it(patient: Bench) -> None:
    def wait(job: Job) -> None:
        patient.jobs.pause(3600)

    async def first() -> Job:
        patient.does("thing", wait)
        async with patient.running():
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            await patient.until(lambda: patient.seen[job.id])
        assert patient.row(job).status == "queued"
        return job

    async def second(job: Job) -> None:
        other = patient.again()
        other.does("thing")
        async with other.running():
            (found,) = await other.ended(job)
        assert (found.status, other.seen[job.id]) == ("done", 1)
        # On a slow machine the first may take it up once more, and give it back, before it has stopped.
        assert found.attempts >= 2
        other.store.close()

    asyncio.run(second(asyncio.run(first())))


def test_what_runs_on_the_loop_may_end_at_a_stop_but_not_for_ever(patient: Bench) -> None:
    said: list[str] = []

    async def short() -> str:
        while not patient.jobs._stopping.is_set():
            await asyncio.sleep(0.01)
        return "short"

    async def long() -> str:
        await asyncio.sleep(3600)
        return "long"

    def work_of(job: Job) -> None:
        said.append(patient.jobs.on_loop(short()))
        try:
            patient.jobs.on_loop(long())
        except Interrupted:
            said.append("interrupted")
            raise

    async def work() -> None:
        patient.does("thing", work_of)
        async with patient.running():
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            await patient.until(lambda: patient.seen[job.id])
        assert said == ["short", "interrupted"]
        assert patient.row(job).status == "queued"

    asyncio.run(work())


def test_errors_on_the_loop_reach_the_handler(patient: Bench) -> None:
    async def fail() -> None:
        raise TimeoutError("of the work's own")

    caught: list[str] = []

    def work_of(job: Job) -> None:
        with pytest.raises(TimeoutError) as error:
            patient.jobs.on_loop(fail())
        caught.append(str(error.value))

    async def work() -> None:
        patient.does("thing", work_of)
        async with patient.running():
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            await patient.ended(job)
        assert caught == ["of the work's own"]

    asyncio.run(work())


def test_a_gateway_leaves_the_kinds_that_it_does_not_do(bench: Bench) -> None:
    async def work() -> None:
        bench.does("thing")
        async with bench.running():
            (mine,) = bench.add()
            (other,) = bench.add("other")
            bench.jobs.submit(bench.tenant, mine)
            await bench.ended(mine)
            bench.passes(2 * LEASE_S)
            await asyncio.sleep(2 * LEASE_S)
            assert bench.row(other).status == "queued"

    asyncio.run(work())


def test_one_queue_a_process(patient: Bench) -> None:
    async def work() -> None:
        patient.does("thing")
        other = patient.again()
        other.does("thing")
        async with patient.running():
            with pytest.raises(RuntimeError, match="one queue"):
                await other.jobs.start()
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            await patient.ended(job)
        other.store.close()

    asyncio.run(work())


def test_without_jobs_there_is_no_queue(tmp_path: Path) -> None:
    found = bench_of(Settings(database=f"sqlite:///{tmp_path / 'x.db'}", storage=str(tmp_path / "images")))

    async def work() -> None:
        async with found.running():
            pass

    asyncio.run(work())
    found.store.close()
    assert not list(tmp_path.glob("*.queue"))


def test_a_queue_that_can_not_be_opened_is_told_without_its_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = bench_of(Settings(database=f"sqlite:///{tmp_path / 'x.db'}", storage=str(tmp_path / "images")))
    found.does("thing")
    (tmp_path / "x.db.queue").write_bytes(b"this is no database " * 100)

    async def start() -> None:
        with pytest.raises(StoreError) as error:
            await found.jobs.start()
        assert str(tmp_path) not in str(error.value)

    asyncio.run(start())
    assert str(tmp_path) not in caplog.text
    # Nothing is left of it: the next one starts.
    (tmp_path / "x.db.queue").unlink()

    async def work() -> None:
        async with found.running():
            (job,) = found.add()
            await found.ended(job)

    asyncio.run(work())
    found.store.close()


def test_old_entries_go(patient: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        patient.does("thing")
        async with patient.running():
            rows = patient.add(n=3)
            for job in rows:
                patient.jobs.submit(patient.tenant, job)
            await patient.ended(*rows)
            assert patient.jobs._queue is not None
            assert await asyncio.to_thread(patient.jobs._queue.tidy) == 0
            monkeypatch.setattr(queueing, "_KEEP", dt.timedelta(seconds=-60))
            assert await asyncio.to_thread(patient.jobs._queue.tidy) >= 3
            assert await asyncio.to_thread(patient.jobs._queue.tidy) == 0

    asyncio.run(work())


def test_the_library_is_quiet(patient: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        patient.does("thing")
        async with patient.running():
            (job,) = patient.add()
            patient.jobs.submit(patient.tenant, job)
            await patient.ended(job)

    asyncio.run(work())
    # Lines of its own would not pass through our log.
    assert not [h for h in logging.getLogger("dbos").handlers if isinstance(h, logging.StreamHandler)]
    assert "dbos" not in "".join(capfd.readouterr()).lower()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40ss%2Fw%3A%25@db.example:6432/gateway?sslmode=require",
        "postgresql://postgres:@/gateway_1?host=/tmp/some+where/data",
    ],
)
def test_the_librarys_driver_gets_the_same_address(url: str) -> None:
    store = Store(url)
    given = make_url(queueing._url(store))
    assert given.get_backend_name() == "postgresql"
    assert given.set(drivername="x") == store.url.set(drivername="x")
    store.close()


@contextlib.contextmanager
def shut(url: str) -> Iterator[None]:
    """A database that nobody can reach, of a server that runs."""
    name = make_url(url).database
    connection = psycopg2.connect(postgres().url("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        connection.close()


@pytest.mark.slow
def test_a_database_that_goes_and_comes_back(tmp_path: Path) -> None:
    url = new_database()
    bench = bench_of(Settings(database=url, storage=str(tmp_path / "images"), job_lease_s=LEASE_S))
    gone = threading.Event()

    def write(job: Job) -> None:
        if job.attempts == 1:
            assert gone.wait(180)
        with bench.store.write(bench.tenant, "jobs") as scope:
            bench.jobs.still_ours(scope, job)

    async def work() -> None:
        bench.does("thing", write)
        async with bench.running():
            (job,) = bench.add()
            bench.jobs.submit(bench.tenant, job)
            await bench.until(lambda: bench.seen[job.id])
            with shut(url):
                gone.set()
                await asyncio.sleep(2 * LEASE_S)
            (found,) = await bench.ended(job)
            assert found.status == "done"
            assert found.attempts >= 2
            (later,) = bench.add()
            bench.jobs.submit(bench.tenant, later)
            await bench.ended(later)

    asyncio.run(work())
    bench.store.close()


@pytest.mark.slow
def test_a_stop_while_the_database_is_away(tmp_path: Path) -> None:
    """The process ends by itself, and a start afterwards goes on."""
    url = new_database()
    waits = {"GATEWAY_SYSTEMS": "s3", "GATEWAY_JOB_LEASE_S": "600", "DATABASE_URL": url}
    with live_gateway(tmp_path, NOWHERE, **waits) as live:
        with live.client(live.token(kind="bearer"), bearer=True) as app:
            scan_id = begin(app)
            assert send(app, scan_id, SELFIE).status_code == 200
            until(lambda: job_of(live, scan_id).status == "running")
        with shut(url):
            # 30 s are allowed, then this raises.
            assert live.stop() == 0
        end_lease(live, scan_id)
        live.environment["GATEWAY_SCAN_WAIT_S"] = "0.5"
        live.start()
        with live.client(live.token(kind="bearer"), bearer=True):
            until(lambda: job_of(live, scan_id).status == "done")
    with live.scope() as scope:
        assert scans.get(scope, scan_id).failure["code"] == "model_away"  # type: ignore[index]


def until(true: Callable[[], bool], timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def job_of(live: Live, scan_id: str) -> Job:
    with live.scope() as scope:
        return row_of(scope, scan_id)


def row_of(scope: Scope, scan_id: str) -> Job:
    (job,) = scope.session.scalars(select(Job).where(Job.about == f"scan:{scan_id}"))
    return job


def end_lease(live: Live, scan_id: str) -> None:
    """What time would do. Short leases would end on a busy machine too, where nobody has died."""
    with live.scope() as scope:
        row = row_of(scope, scan_id)
        if row.lease_until is not None:
            row.lease_until = scope.now


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with live_models(tmp_path_factory.mktemp("models")) as servers:
        yield servers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("sqlite", "kill -9"),
        ("postgresql", "SIGTERM"),
        ("postgresql", "kill -9"),
        ("sqlite", "SIGTERM"),
    ],
)
def test_a_scan_whose_gateway_ends_in_the_middle_is_completed_once(
    tmp_path: Path, models: Servers, kind: str, end: str
) -> None:
    environment = {"GATEWAY_SYSTEMS": "s3", "GATEWAY_JOB_LEASE_S": "600"}
    if kind == "postgresql":
        environment["DATABASE_URL"] = new_database()
    # It waits for models, which it finds after its second start.
    with live_gateway(tmp_path, NOWHERE, **environment) as live:
        token = live.token(kind="bearer")
        with live.client(token, bearer=True) as app:
            scan_id = begin(app)
            assert send(app, scan_id, SELFIE).status_code == 200
            until(lambda: job_of(live, scan_id).status == "running")
            assert app.get(f"{BASE}/{scan_id}/status").json()["status"] == "processing"
        if end == "kill -9":
            live.kill()
            assert job_of(live, scan_id).status == "running"
            end_lease(live, scan_id)
        else:
            assert live.stop() == 0
            assert job_of(live, scan_id).status == "queued"
        live.models_url = models.url
        live.start()
        with live.client(token, bearer=True) as app:
            assert ended(app, scan_id)["status"] == "completed"
            until(lambda: job_of(live, scan_id).status == "done")
            assert app.get(f"{BASE}/{scan_id}/results").status_code == 200
        assert job_of(live, scan_id).attempts == 2
        with live.scope() as scope:
            assert len(predictions.listed(scope, scan_id=scan_id)) == 2
        # It talks to this machine only.
        assert live.process is not None
        assert live.process.process is not None
        process: Any = psutil.Process(live.process.process.pid)
        # Its name since psutil 6.
        ask = getattr(process, "net_connections", None) or process.connections
        found = ask("inet")
        assert {c.raddr.ip for c in found if c.raddr} <= {"127.0.0.1"}


@pytest.mark.slow
def test_two_gateways_share_one_queue(tmp_path: Path, models: Servers) -> None:
    """Each scan is done once, by either; when one of them dies, the other does the rest."""
    environment = {"GATEWAY_SYSTEMS": "s3", "GATEWAY_JOB_LEASE_S": "2", "DATABASE_URL": new_database()}
    images = {"STORAGE_DIR": str(tmp_path / "images"), "GATEWAY_SIGNING_KEYS": "ab" * 32}
    with (
        live_gateway(tmp_path / "one", models.url, **environment, **images) as one,
        live_gateway(tmp_path / "two", models.url, **environment, **images) as two,
    ):
        token = one.token(kind="bearer")
        with one.client(token, bearer=True) as first, two.client(token, bearer=True) as second:
            ids = []
            for n in range(16):
                app = (first, second)[n % 2]
                ids.append(begin(app))
                assert send(app, ids[-1], SELFIE).status_code == 200
            # In the middle, most likely; whatever it was doing, nothing is lost and nothing is done twice.
            one.kill()
            assert [ended(second, scan_id)["status"] for scan_id in ids] == ["completed"] * 16
            until(lambda: all(job_of(two, scan_id).status == "done" for scan_id in ids))
        with two.scope() as scope:
            for scan_id in ids:
                assert len(predictions.listed(scope, scan_id=scan_id)) == 2


@pytest.mark.slow
def test_both_gateways_work(tmp_path: Path, models: Servers) -> None:
    environment = {"GATEWAY_SYSTEMS": "s3", "DATABASE_URL": new_database()}
    images = {"STORAGE_DIR": str(tmp_path / "images"), "GATEWAY_SIGNING_KEYS": "ab" * 32}
    with (
        live_gateway(tmp_path / "one", models.url, **environment, **images) as one,
        live_gateway(tmp_path / "two", models.url, **environment, **images) as two,
    ):
        token = one.token(kind="bearer")
        with one.client(token, bearer=True) as first, two.client(token, bearer=True) as second:
            counts = [0.0, 0.0]
            total = 0
            # All are sent to one of them.
            while min(counts) == 0 and total < 60:
                ids = [begin(first) for _ in range(6)]
                for scan_id in ids:
                    assert send(first, scan_id, SELFIE).status_code == 200
                total += len(ids)
                assert {ended(second, scan_id)["status"] for scan_id in ids} == {"completed"}
                until(lambda: all(job_of(two, scan_id).status == "done" for scan_id in ids))  # noqa: B023
                counts = [done(app) for app in (first, second)]
        assert min(counts) > 0
        assert sum(counts) == total


def done(client: Any) -> float:
    """How many jobs a gateway says it has done."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith('retiderm_gateway_jobs_total{kind="face-scan",outcome="done"}'):
            return float(line.split()[-1])
    return 0.0


def test_a_lease_must_be_a_time() -> None:
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError):
            Settings(job_lease_s=value)
