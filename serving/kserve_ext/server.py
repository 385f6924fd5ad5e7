"""KServe's model server, bound to one address, with our limits, errors and an orderly stop.

Upstream listens on every interface; on SIGTERM it drains REST first, then closes the transformer's channel to
the predictor under its own gRPC requests, and answers 404 for models that it has already unloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import uvicorn
from fastapi import APIRouter
from kserve import Model, ModelRepository, ModelServer
from kserve.model_server import app as kserve_app
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.rest.server import RESTServer

from data.errors import ServingError
from serving.kserve_ext.dataplane import GuardedDataPlane, GuardedRepositoryExtension
from serving.kserve_ext.errors import StatusInterceptor, install_handlers
from serving.kserve_ext.middleware import BodyLimit, CatchAll, OneParser

_LOG = logging.getLogger("retiderm.serving")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server listens and what it agrees to take."""

    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 8081
    max_body_bytes: int = 64 * 2**20
    grace_s: float = 30.0


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are ours: REST and gRPC stop together


class Server(ModelServer):  # type: ignore[misc]
    """One process's REST and gRPC server.

    ``is_ready`` answers the readiness probe; ``before`` and ``after`` are run on the loop around serving.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        is_ready: Callable[[], Awaitable[bool]],
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(
            http_port=settings.http_port,
            grpc_port=settings.grpc_port,
            registered_models=ModelRepository(),
            enable_latency_logging=False,
        )
        self.settings = settings
        self.dataplane = GuardedDataPlane(self.registered_models, is_ready)
        self.model_repository_extension = GuardedRepositoryExtension(self.registered_models)
        self._before, self._after = before, after

    def add_router(self, router: APIRouter) -> None:
        """Add routes of our own; they win over KServe's of the same path."""
        kserve_app.include_router(router)

    def start(self, models: Sequence[Model]) -> None:
        """Serve until SIGTERM or SIGINT; returns when what was in flight is answered."""
        self._register_and_check_atleast_one_model_is_ready(list(models))
        # KServe's modules are a few hundred thousand objects that never go: a full collection that walks them
        # holds up every request for tens of milliseconds.
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        rest = self._rest()
        remote = await self._grpc()
        if self._before is not None:
            await self._before()
        serving = asyncio.create_task(rest.serve())
        try:
            while not rest.started and not serving.done():
                await asyncio.sleep(0.01)
            if serving.done():
                await serving
                raise ServingError(
                    f"Can't listen on {self.settings.host}:{self.settings.http_port}.",
                    hint="Another program has this port: choose another with --port.",
                )
            self._announce()
            waiting = asyncio.create_task(stop.wait())
            await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        finally:
            rest.should_exit = True
            await asyncio.gather(remote.stop(self.settings.grace_s), _quietly(serving))
            if self._after is not None:
                await self._after()

    def _rest(self) -> _Uvicorn:
        app = kserve_app
        # KServe's own routes, handlers and middleware, from the class that would have run them.
        RESTServer(
            "kserve.model_server:app", self.dataplane, self.model_repository_extension, self.http_port
        ).create_application()
        install_handlers(app)
        config = uvicorn.Config(
            CatchAll(BodyLimit(OneParser(app), self.settings.max_body_bytes)),
            host=self.settings.host,
            port=self.settings.http_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(self.settings.grace_s),
            timeout_keep_alive=65,
            server_header=False,
        )
        return _Uvicorn(config)

    async def _grpc(self) -> Any:
        server = grpc.aio.server(
            ThreadPoolExecutor(max_workers=1),
            interceptors=(StatusInterceptor(),),
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", self.settings.max_body_bytes),
                # Two servers on one port would share its connections without a word.
                ("grpc.so_reuseport", 0),
            ],
        )
        servicer = InferenceServicer(self.dataplane, self.model_repository_extension)
        add_GRPCInferenceServiceServicer_to_server(servicer, server)
        try:
            server.add_insecure_port(f"{self.settings.host}:{self.settings.grpc_port}")
        except RuntimeError:
            raise ServingError(
                f"Can't listen on {self.settings.host}:{self.settings.grpc_port} for gRPC.",
                hint="Another program has this port: choose another with --grpc-port.",
            ) from None
        await server.start()
        return server

    def _announce(self) -> None:
        _LOG.info("ready: http://%s:%d, gRPC %d", self.settings.host, self.http_port, self.settings.grpc_port)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, as uvicorn would choose: a third of a millisecond a request."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _quietly(task: asyncio.Task[None]) -> None:
    try:
        await task
    except (asyncio.CancelledError, SystemExit):
        _LOG.debug("the REST server ended by itself")
