"""Each habit of KServe that we work round: a test fails when upstream mends it, and the work-round can go."""

from __future__ import annotations

import asyncio
import inspect

import grpc
import pytest
from kserve import InferRequest, Model, ModelRepository
from kserve.errors import ModelNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.v2_datamodels import ModelMetadataResponse

from serving.client import encode
from serving.kserve_ext.dataplane import GuardedDataPlane, GuardedRepositoryExtension, read_binary
from serving.kserve_ext.errors import Forbidden

JPEG = b"\xff\xd8\xff\xe0 not text: \x80\x81"


class Echo(Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("echo")
        self.ready = True

    async def predict(
        self, payload: object, headers: object = None, response_headers: object = None
    ) -> object:
        return {"predictions": []}

    async def explain(self, payload: object, headers: object = None) -> object:
        return {"predictions": []}


def planes() -> tuple[DataPlane, GuardedDataPlane]:
    models = ModelRepository()
    models.update(Echo())

    async def yes() -> bool:
        return True

    return DataPlane(models), GuardedDataPlane(models, yes)


def test_binary_images() -> None:
    body, length = encode([JPEG])
    with pytest.raises(Exception, match=r"(?i)utf-8"):
        InferRequest.from_bytes(body, length, "m")
    ours = read_binary(body, str(length), "m")
    assert ours.inputs[0]._raw_data.endswith(JPEG)


def test_explain_echoes_the_requests_headers() -> None:
    theirs, ours = planes()
    secret = {"authorization": "Bearer x"}
    _, echoed = asyncio.run(theirs.explain("echo", {}, dict(secret)))
    assert echoed == secret
    _, quiet = asyncio.run(ours.explain("echo", {}, dict(secret)))
    assert quiet == {}


def test_the_repository_is_open_to_anyone() -> None:
    theirs, _ = planes()
    theirs.model_registry.unload("echo")
    assert theirs.model_registry.get_model("echo") is None
    guarded = GuardedRepositoryExtension(ModelRepository())
    for call in (guarded.load, guarded.unload):
        with pytest.raises(Forbidden):
            asyncio.run(call("echo"))


def test_model_not_ready_has_no_reason_for_grpc() -> None:
    assert not hasattr(ModelNotReady("m"), "reason")


def test_metadata_has_no_room_for_parameters() -> None:
    assert set(ModelMetadataResponse.model_fields) == {"name", "versions", "platform", "inputs", "outputs"}


def test_servers_listen_on_every_interface() -> None:
    from kserve.protocol.grpc.server import GRPCServer
    from kserve.protocol.rest.server import RESTServer

    assert '"0.0.0.0"' in inspect.getsource(RESTServer.__init__)
    assert "[::]" in inspect.getsource(GRPCServer.start)


def test_arguments_are_not_kserves() -> None:
    import subprocess
    import sys

    script = (
        "import sys; sys.argv += ['--http_port', 'many', '--workers', 'x']\n"
        "import serving.kserve_ext; print(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "--http_port", done.stderr


def test_codes() -> None:
    from data.errors import NotAnImage, ServingError
    from serving.kserve_ext.errors import QueueFull, to_wire

    assert (to_wire(NotAnImage("x")).http, to_wire(NotAnImage("x")).grpc) == (
        415,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    full = to_wire(QueueFull("x", retry_after=3))
    assert (full.http, full.grpc, full.retry_after) == (503, grpc.StatusCode.UNAVAILABLE, 3)
    for secret in (ServingError("/srv/secret/path"), ValueError("/srv/secret/path")):
        hidden = to_wire(secret)
        assert hidden.http == 500
        assert "secret" not in hidden.message
