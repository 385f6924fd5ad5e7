"""Real servers on free loopback ports, and one way to ask them over each wire."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferRequest
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from serving.blobs import pack, unpack
from serving.client import decode, encode
from serving.core.bundle import Bundle
from serving.core.challenger import Challenger, write_challenger
from serving.core.pointer import Pointer, version_path, write_pointer

WIRES = ("v1", "v2 json", "v2 binary", "grpc")


#: How long anything that has to come may take: a machine that is busy with other things is slow, not wrong.
PATIENCE_S = 240.0

#: Below what the system gives by itself, to clients and to whoever asks for any port, and ten apart: `serve`
#: takes those beside its own.
_PORTS = range(10000, 21000, 10)
#: Open as long as this process lives, and so are the locks on them.
_held: list[Any] = []


def free_port() -> int:
    """A port that nobody listens on, and that no other process of these tests is given meanwhile."""
    folder = Path(tempfile.gettempdir()) / f"retiderm-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    start = os.getpid() * 37 + len(_held)
    for port in (_PORTS[(start + n) % len(_PORTS)] for n in range(len(_PORTS))):
        held = (folder / str(port)).open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        _held.append(held)
        return port
    raise RuntimeError("no free port")


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.02)


def get(url: str | httpx.URL, **options: Any) -> httpx.Response:
    """Ask, with patience."""
    return httpx.get(url, timeout=PATIENCE_S, **options)


def post(url: str, **options: Any) -> httpx.Response:
    """Send, with patience."""
    return httpx.post(url, timeout=PATIENCE_S, **options)


def promote(root: Path, bundle: Bundle, version: str) -> Pointer:
    """Copy a bundle under a serving root and point at it, as a promotion does."""
    task = bundle.card.task
    path = version_path(version, bundle.digest)
    folder = root / task / path
    if not folder.exists():
        shutil.copytree(bundle.root, folder)
    pointer = Pointer(task, version, bundle.digest, path)
    write_pointer(root, pointer)
    return pointer


def challenge(root: Path, bundle: Bundle, version: str, mode: str, share: float = 0.0) -> None:
    """Copy a bundle under a serving root and let it answer beside the champion."""
    task = bundle.card.task
    path = version_path(version, bundle.digest)
    folder = root / task / path
    if not folder.exists():
        shutil.copytree(bundle.root, folder)
    write_challenger(root, Challenger(Pointer(task, version, bundle.digest, path), mode, share))


class Process:
    """A server's process, with its log in a file."""

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.module, self.arguments, self.log = module, list(arguments), log
        self.env = None if env is None else {**os.environ, **env}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments, "--die-with-parent"],
                stdout=stream,
                stderr=stream,
                env=self.env,
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it take nothing and answer nothing meanwhile: whoever asked it waits, for certain."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@dataclass
class Servers:
    """A predictor and a transformer."""

    root: Path
    log: Path
    poll_s: float = 0.1
    predictor_options: tuple[str, ...] = ()
    transformer_options: tuple[str, ...] = ()
    ports: tuple[int, int, int, int] = field(
        default_factory=lambda: (free_port(), free_port(), free_port(), free_port())
    )

    def __post_init__(self) -> None:
        what = ["--root", str(self.root), "--poll-s", str(self.poll_s), "--grace-s", "60"]
        http, remote, inner_http, inner = self.ports
        self.predictor = Process(
            "serving.predictor",
            [*what, "--http-port", str(inner_http), "--grpc-port", str(inner), *self.predictor_options],
            self.log.with_suffix(".predictor.log"),
        )
        self.transformer = Process(
            "serving.transformer",
            [*what, "--http-port", str(http), "--grpc-port", str(remote), "--predictor", f"127.0.0.1:{inner}",
             "--predictor-timeout-s", str(PATIENCE_S), *self.transformer_options],
            self.log.with_suffix(".transformer.log"),
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def predictor_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}"

    @property
    def predictor_grpc(self) -> str:
        return f"127.0.0.1:{self.ports[3]}"

    def wait_ready(self, timeout_s: float = PATIENCE_S) -> None:
        """Until the transformer says that both are ready."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/v2/health/ready", timeout=5).status_code == 200:
                    return
            for process in (self.predictor, self.transformer):
                assert process.process is not None
                assert process.process.poll() is None, process.log.read_text()[-2000:]
            time.sleep(0.05)
        raise AssertionError("not ready: " + self.transformer.log.read_text()[-2000:])

    @contextlib.contextmanager
    def running(self) -> Iterator[Servers]:
        """Both started and ready; both stopped at the end."""
        self.predictor.start()
        self.transformer.start()
        try:
            self.wait_ready()
            yield self
        finally:
            for process in (self.transformer, self.predictor):
                if process.process is not None and process.process.poll() is None:
                    process.terminate()


@dataclass(frozen=True)
class Reply:
    """What came back, the same for every wire. ``status`` is HTTP's number or gRPC's name."""

    status: int | str
    code: str = ""
    message: str = ""
    documents: tuple[dict[str, Any], ...] = ()
    overlays: tuple[bytes, ...] = ()
    outputs: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status in (200, "OK")


def ask(
    servers: Servers, wire: str, images: Sequence[bytes], *, task: str = "dr_grading", explain: Any = None
) -> Reply:
    """Ask the transformer about images over one wire."""
    if wire == "v1":
        instances = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]
        if explain is not None:
            instances = [{**instance, "explain": explain} for instance in instances]
        return post_v1(servers, {"instances": instances}, task=task)
    if wire == "v2 json":
        document: dict[str, Any] = {"inputs": [json_input(images)]}
        if explain is not None:
            document["parameters"] = {"explain": explain}
        return post_v2(servers, document, task=task)
    if wire == "v2 binary":
        body, length = encode(images, explain=explain or "")
        return post_binary(servers, body, length, task=task)
    return call_grpc(servers.grpc, grpc_request(images, task=task, explain=explain))


def json_input(images: Sequence[bytes]) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}


def post_v1(
    servers: Servers, body: Any, *, task: str = "dr_grading", verb: str = "predict", headers: Any = None
) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = post(
        f"{servers.url}/v1/models/{task}:{verb}",
        content=content,
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    if response.status_code != 200:
        return refused(response)
    documents = response.json()["predictions"]
    overlays = tuple(
        base64.b64decode(d.get("explanation", {}).get("overlay_png", {}).get("b64", "")) for d in documents
    )
    return Reply(200, documents=tuple(documents), overlays=overlays, headers=dict(response.headers))


def post_v2(servers: Servers, body: Any, *, task: str = "dr_grading", url: str | None = None) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = post(
        f"{url or servers.url}/v2/models/{task}/infer",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    if response.status_code != 200:
        return refused(response)
    document = response.json()
    outputs = {item["name"]: (item["shape"], item["data"]) for item in document["outputs"]}
    overlays = tuple(base64.b64decode(text) for text in outputs.get("overlay", ([], []))[1])
    return _answered(200, outputs, document["parameters"], overlays)


def post_binary(
    servers: Servers,
    body: bytes,
    length: int | str | None,
    *,
    task: str = "dr_grading",
    url: str | None = None,
) -> Reply:
    headers = {b"Content-Type": b"application/octet-stream"}
    if length is not None:
        # Latin-1 is what a header may hold, and more than httpx would send by itself.
        headers[b"Inference-Header-Content-Length"] = str(length).encode("latin-1")
    target = f"{url or servers.url}/v2/models/{task}/infer"
    response = post(target, content=body, headers=headers)
    if response.status_code != 200:
        return refused(response)
    reply = decode(response.content, int(response.headers["inference-header-content-length"]))
    outputs = {name: (_shape(values), _plain(values)) for name, values in reply.outputs.items()}
    overlays = tuple(reply.outputs.get("overlay", ()))
    return _answered(200, outputs, reply.parameters, overlays)


def grpc_request(
    images: Sequence[bytes], *, task: str = "dr_grading", explain: Any = None, raw: bool = True
) -> Any:
    request = ModelInferRequest(model_name=task)
    if isinstance(explain, bool):
        request.parameters["explain"].CopyFrom(InferParameter(bool_param=explain))
    elif explain is not None:
        request.parameters["explain"].CopyFrom(InferParameter(string_param=str(explain)))
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    if raw:
        request.raw_input_contents.append(pack(images))
    else:
        tensor.contents.bytes_contents.extend(images)
    return request


def call_grpc(address: str, request: Any) -> Reply:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            response = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            trailing = dict(error.trailing_metadata() or ())
            return Reply(
                error.code().name,
                code=trailing.get("error-code", ""),
                message=error.details(),
                headers={k: v for k, v in trailing.items() if isinstance(v, str)},
            )
    import numpy as np

    types = {"FP32": np.float32, "BOOL": np.bool_, "INT64": np.int64}
    outputs: dict[str, Any] = {}
    for i, item in enumerate(response.outputs):
        values: Any
        if response.raw_output_contents:
            blob = response.raw_output_contents[i]
            values = (
                unpack(blob, item.name)
                if item.datatype == "BYTES"
                else np.frombuffer(blob, types[item.datatype]).reshape(tuple(item.shape))
            )
        else:
            fields = {"FP32": "fp32_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}
            values = list(getattr(item.contents, fields[item.datatype]))
        outputs[item.name] = (list(item.shape), _plain(values))
    parameters = {key: value.string_param for key, value in response.parameters.items()}
    overlays = tuple(outputs.get("overlay", ([], []))[1])
    return _answered("OK", outputs, parameters, overlays)


def refused(response: httpx.Response) -> Reply:
    document = response.json()
    return Reply(
        response.status_code,
        code=document.get("code", ""),
        message=document["error"],
        headers=dict(response.headers),
    )


def _answered(
    status: int | str, outputs: dict[str, Any], parameters: dict[str, Any], overlays: tuple[bytes, ...]
) -> Reply:
    documents = rows(outputs, parameters)
    return Reply(status, documents=documents, overlays=overlays, outputs=outputs, parameters=parameters)


def rows(outputs: dict[str, Any], parameters: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """V2's columns as one document an image, in the form of V1."""
    if "verdict" not in outputs:
        return ()
    classes = json.loads(parameters["classes"])
    found = []
    for i in range(outputs["verdict"][0][0]):
        error = _text(outputs["error"][1][i])
        if error:
            found.append({"error": json.loads(error)})
            continue
        heads = {}
        for head, names in classes.items():
            label = _text(outputs[f"{head}.label"][1][i])
            if label:
                n = len(names)
                values = outputs[f"{head}.probabilities"][1][i * n : (i + 1) * n]
                members = outputs[f"{head}.set"][1][i * n : (i + 1) * n]
                heads[head] = {
                    "label": label,
                    "confidence": max(values),
                    "probabilities": dict(zip(names, values, strict=True)),
                    "set": [name for name, inside in zip(names, members, strict=True) if inside],
                    "uncertain": outputs[f"{head}.uncertain"][1][i],
                }
        found.append(
            {
                "quality": {
                    "verdict": _text(outputs["verdict"][1][i]),
                    "reasons": json.loads(_text(outputs["reasons"][1][i])),
                },
                "heads": heads,
                **_anomaly(outputs, i),
                "model": {k: parameters[k] for k in ("name", "version", "digest", "precision")},
            }
        )
    return tuple(found)


def _anomaly(outputs: dict[str, Any], i: int) -> dict[str, Any]:
    """The part of an anomaly model's document, its threshold as float32 has it."""
    if "anomaly.score" not in outputs:
        return {}
    score, threshold, label, regions = (
        outputs[f"anomaly.{name}"][1][i] for name in ("score", "threshold", "label", "regions")
    )
    if not _text(regions):
        return {}
    told = {"score": score, "threshold": threshold, "label": _text(label)}
    return {"anomaly": {**told, "regions": json.loads(_text(regions))}}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _shape(values: Any) -> list[int]:
    return [len(values)] if isinstance(values, list) else list(values.shape)


def _plain(values: Any) -> Any:
    return values if isinstance(values, list) else values.reshape(-1).tolist()
