"""Models with an address each, as on a cluster: who is asked, and what of those that are not there."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import aiohttp
import pytest

from data.errors import UsageError
from serving.gateway import models as module
from serving.gateway.errors import ModelAway, NotServed
from serving.gateway.models import Models
from serving.gateway.settings import Settings

T = TypeVar("T")
TASKS = ("dr_grading", "skin_lesion", "acne")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds are long for a server that has nothing to do, on a machine that has nothing else to do."""
    monkeypatch.setattr(module, "_READY", aiohttp.ClientTimeout(total=120.0))
    monkeypatch.setattr(module, "_CONNECT_S", 120.0)


@dataclass
class Cluster:
    """Services below one address, each of which knows its own model: models' names by services'."""

    port: int
    ready: dict[str, str]
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{{task}}"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster(0, {"dr-grading": "dr_grading", "dr-grading-challenger": "dr_grading-challenger"})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            _, service, rest = self.path.split("/", 2)
            name = found.ready.get(service)
            known = {f"v2/models/{name}/ready": {}, f"v2/models/{name}": {"parameters": {"version": service}}}
            self._say(200 if rest in known else 404, known.get(rest, {}))

        def do_POST(self) -> None:
            found.asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(503, {})

        def _say(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def with_models(url: str, work: Callable[[Models], Awaitable[T]], tasks: tuple[str, ...] = TASKS) -> T:
    async def run() -> T:
        models = Models(url, 120.0, tasks)
        try:
            return await work(models)
        finally:
            await models.close()

    return asyncio.run(run())


def test_each_is_asked_at_its_own_address(cluster: Cluster) -> None:
    async def work(models: Models) -> None:
        assert await models.ready("dr_grading")
        assert (await models.describe("dr_grading") or {})["version"] == "dr-grading"
        beside = await models.describe("dr_grading-challenger") or {}
        assert beside["version"] == "dr-grading-challenger"
        with pytest.raises(ModelAway, match="no time"):
            await models.ask("dr_grading", b"x")

    with_models(cluster.url, work)
    assert cluster.asked == [
        "/dr-grading/v2/models/dr_grading/ready",
        "/dr-grading/v2/models/dr_grading",
        "/dr-grading-challenger/v2/models/dr_grading-challenger",
        "/dr-grading/v2/models/dr_grading/infer",
    ]


def test_the_names_are_of_those_that_are_ready(cluster: Cluster) -> None:
    assert with_models(cluster.url, Models.names) == ["dr_grading", "dr_grading-challenger"]
    cluster.ready = {"acne": "acne"}
    assert with_models(cluster.url, Models.names) == ["acne"]
    # Somebody answers, and nothing is promoted.
    cluster.ready = {}
    assert with_models(cluster.url, Models.names) == []


def test_nobody_there(cluster: Cluster) -> None:
    async def names(models: Models) -> None:
        with pytest.raises(ModelAway, match="No model"):
            await models.names()
        assert not await models.ready("dr_grading")
        assert await models.describe("dr_grading") is None

    # A port that nobody listens on.
    with_models("http://127.0.0.1:9/{task}", names)


@pytest.mark.parametrize("name", ["skin_profile", "x", "..", "evil.example.org/", "dr_grading-other"])
def test_no_other_name_becomes_an_address(name: str, cluster: Cluster) -> None:
    async def work(models: Models) -> None:
        assert not await models.ready(name)
        assert await models.describe(name) is None
        with pytest.raises(NotServed):
            await models.ask(name, b"x")

    with_models(cluster.url, work)
    assert cluster.asked == []


def test_a_cluster_by_settings() -> None:
    url = "http://{task}-predictor"
    found = Settings.from_env({"GATEWAY_MODELS_URL": url, "GATEWAY_MODEL_TASKS": "acne, dr_grading"})
    assert (found.models_url, found.model_tasks) == (url, ("acne", "dr_grading"))
    for wrong in ("http://{name}-predictor", "http://{task}-{task", "http://task}"):
        with pytest.raises(UsageError):
            Settings.from_env({"GATEWAY_MODELS_URL": wrong})
    for wrong in ("acne,evil.example.org/", "Acne", "a-b"):
        with pytest.raises(UsageError):
            Settings.from_env({"GATEWAY_MODEL_TASKS": wrong})
