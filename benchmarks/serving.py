"""From a 1 megapixel JPEG to the answer with its overlay: every step, every wire, and under load.

Run: ``python -m benchmarks.serving [--rounds 100] [--seconds 10] [--out FILE.csv]``.

ResNet-50 with random weights (time doesn't depend on them), exported as any other model and served by
``retiderm serve`` on loopback, two processes. In each round every contender has one turn, in an order drawn
anew, so that a busy machine slows all of them alike; ``beyond`` is the median of the differences from the
bare session's time in the same round. Then an open loop: requests come at random at 50, 100 and 200 % of the
measured capacity, whether or not the earlier ones are answered, while health is asked ten times a second.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.preprocess import encoded
from data.files import atomic_path, digest_json
from data.paths import home
from data.preprocess import Clahe, Preprocessing
from data.provenance import code_digest, cpu_quota, hardware, versions
from data.quality import PROFILES, assess

OUT = Path(__file__).parent / "results" / "serving.csv"
CLASSES = ("no_dr", "mild", "moderate", "severe", "proliferative")
SETTINGS = Preprocessing(size=(224, 224), crop="fundus", clahe=Clahe())
BARE = "ONNX session alone, logits and map"
TASK = "dr_grading"


def bundle_folder() -> Path:
    """The bundle that is measured; made once for a state of the code."""
    digest = code_digest("training.export", "serving.core", "data").removeprefix("sha256:")[:12]
    folder = home().root / "bench" / f"resnet50-{digest}"
    if not folder.exists():
        _make_bundle(folder)
    return folder


def _make_bundle(folder: Path) -> None:
    import io

    import onnxruntime
    import torch

    from serving.core.bundle import Card, DatasetCard, HeadCard, InputCard, PrecisionCard, write_bundle
    from training.export import export_onnx
    from training.model import Classifier
    from training.spec.parts import HeadSpec

    torch.manual_seed(0)
    model = Classifier("resnet50", [HeadSpec("grade", CLASSES)], pretrained=False).eval()
    with tempfile.TemporaryDirectory() as temporary:
        exported = export_onnx(model, SETTINGS.size, Path(temporary) / "model.onnx")
        images = np.random.default_rng(0).integers(0, 256, (2, *SETTINGS.size, 3), dtype=np.uint8)
        session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
        golden = io.BytesIO()
        np.savez(golden, images=images, logits=session.run(["logits"], {"image": images})[0])
        none = digest_json("none")
        card = Card(
            task=TASK,
            kind="classification",
            title="ResNet-50 with random weights, to measure time",
            created_at="2025-01-01T00:00:00+00:00",
            retiderm_version=versions("retiderm").get("retiderm", ""),
            code_digest=code_digest("training"),
            backbone="resnet50",
            input=InputCard(SETTINGS.size, model.mean, model.std),
            preprocessing=SETTINGS.to_dict(),
            preprocessing_digest=SETTINGS.digest,
            quality=PROFILES["fundus"].to_dict(),
            dataset=DatasetCard(none, none, "none", synthetic=True),
            heads=(HeadCard("grade", CLASSES),),
            outputs=exported.outputs,
            explanation=exported.explanation,
            precisions={"fp32": PrecisionCard("model.onnx")},
        )
        files: dict[str, Path | bytes] = {"model.onnx": exported.path, "golden.npz": golden.getvalue()}
        write_bundle(folder, card, files)


@dataclass
class Table:
    """The rows of the result."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: str, **values: Any) -> None:
        """Add and print a row."""
        self.rows.append({"step": step, **values})
        shown = "  ".join(f"{key} {value}" for key, value in values.items() if value != "")
        print(f"{step:58} {shown}", flush=True)

    def write(self, path: Path) -> None:
        """Write the table with the machine and the versions beside each row."""
        names = ("onnxruntime", "kserve", "opencv-python-headless", "grpcio", "numpy")
        # Beside other work, only real-time priority gives the time that a machine of its own would.
        priority = "normal" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time"
        machine = {**hardware(), "scheduling": priority, **versions(*names)}
        keys = ["step", "median_ms", "p95_ms", "beyond_bare_ms", "value", "unit", "requests", "ok",
                "refused_503", "errors", "health_worst_ms", "rounds"]  # fmt: skip
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*keys, *machine], lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows({**row, **machine} for row in self.rows)


@dataclass(frozen=True)
class Running:
    """The servers that are measured."""

    url: str
    grpc: str
    predictor_grpc: str
    pids: dict[str, int]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(bundle: Path) -> Iterator[Running]:
    """``retiderm serve`` of one bundle."""
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        inner = free_port()
        arguments = ["--bundle", str(bundle), "--port", str(free_port()), "--predictor-port", str(inner)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.cli", "serve", *arguments, "--ready-file", str(ready)],
                stdout=log,
                stderr=log,
            )
        try:
            while not ready.exists():
                if process.poll() is not None:
                    sys.exit((Path(folder) / "log").read_text())
                time.sleep(0.05)
            where = json.loads(ready.read_text())
            pids = {
                next(p for p in ("predictor", "transformer") if f"serving.{p}" in child.cmdline()): child.pid
                for child in psutil.Process(process.pid).children()
            }
            yield Running(where["url"], where["grpc"], f"127.0.0.1:{inner}", pids)
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def plain_kserve(bundle: Path) -> Iterator[str]:
    """The same model behind KServe's default route."""
    import httpx

    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kserve_default", str(bundle / "model.onnx"), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                    break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def contenders(bundle: Path, data: bytes, running: Running, plain: str) -> dict[str, Callable[[], Any]]:
    """One callable a row."""
    import grpc

    from data.quality import prepare
    from serving.client import encode
    from serving.core.bundle import Bundle
    from serving.core.runtimes import open_runtime
    from serving.explain import encode_png, overlay

    opened = Bundle.open(bundle, verify=False)
    runtime = open_runtime(opened)
    profile = PROFILES["fundus"]
    rgb = SETTINGS.decode(data)
    prepared = prepare(data, SETTINGS, profile)
    assert prepared.verdict is not None
    assert prepared.verdict.verdict == "gradable", prepared.verdict
    pixels = prepared.pixels
    cam = runtime.run(pixels[None], ("logits", "cam"))["cam"][0, 0]
    coloured = overlay(pixels, cam)
    infer = f"/v2/models/{TASK}/infer"
    text = base64.b64encode(data).decode()
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    as_json = json.dumps({"inputs": [image], "parameters": {"explain": "overlay"}}).encode()
    as_v1 = json.dumps({"instances": [{"image_bytes": {"b64": text}, "explain": True}]}).encode()
    binary, length = encode([data], explain="overlay")
    octets = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
    json_type = {"Content-Type": "application/json"}
    numbers = json.dumps({"instances": [pixels.astype(float).tolist()]}).encode()
    options = [("grpc.max_receive_message_length", -1)]
    outer = _stub(grpc.insecure_channel(running.grpc, options=options))
    inner = _stub(grpc.insecure_channel(running.predictor_grpc, options=options))
    remote, hop = _grpc_image(data), _grpc_pixels(pixels)

    def post(url: str, path: str, content: bytes, headers: dict[str, str]) -> Callable[[], Any]:
        connection = connect(url.removeprefix("http://"))

        def run() -> None:
            connection.request("POST", path, content, headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body[:500]

        return run

    return {
        BARE: lambda: runtime.run(pixels[None], ("logits", "cam")),
        "step: decode": lambda: SETTINGS.decode(data),
        "step: quality": lambda: assess(rgb, profile),
        "step: preprocess": lambda: SETTINGS(rgb),
        "steps: decode, quality, preprocess, as served": lambda: prepare(data, SETTINGS, profile),
        "step: overlay": lambda: overlay(pixels, cam),
        "step: PNG": lambda: encode_png(coloured),
        "predictor over gRPC: session, decision and hop": lambda: inner.ModelInfer(hop),
        "transformer, V2 binary, with overlay": post(running.url, infer, binary, octets),
        "transformer, V2 JSON, with overlay": post(running.url, infer, as_json, json_type),
        "transformer, gRPC, with overlay": lambda: outer.ModelInfer(remote),
        "transformer, V1, with overlay": post(running.url, f"/v1/models/{TASK}:predict", as_v1, json_type),
        "KServe's default route, V1 JSON floats, no decode": post(
            plain, "/v1/models/plain:predict", numbers, json_type
        ),
    }


def _stub(channel: Any) -> Any:
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    return GRPCInferenceServiceStub(channel)


def _grpc_image(data: bytes) -> Any:
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferRequest

    from serving.blobs import pack

    request = ModelInferRequest(
        model_name=TASK, parameters={"explain": InferParameter(string_param="overlay")}
    )
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(pack([data]))
    return request


def _grpc_pixels(pixels: Any) -> Any:
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferRequest

    parameters = {
        "preprocessing_digest": InferParameter(string_param=SETTINGS.digest),
        "explain": InferParameter(bool_param=True),
    }
    request = ModelInferRequest(model_name=TASK, parameters=parameters)
    request.inputs.add(name="image", datatype="UINT8", shape=[1, *pixels.shape])
    request.raw_input_contents.append(pixels.tobytes())
    return request


def take_turns(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round."""
    rng = np.random.default_rng(0)
    names = list(work)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 5):
        for index in rng.permutation(len(names)):
            started = time.perf_counter()
            work[names[index]]()
            if number >= 5:
                times[names[index]].append((time.perf_counter() - started) * 1e3)
    return times


def measure_steps(table: Table, bundle: Path, data: bytes, running: Running, rounds: int) -> None:
    """Rows of time at concurrency 1."""
    with plain_kserve(bundle) as plain:
        times = take_turns(contenders(bundle, data, running, plain), rounds)
    for name, values in times.items():
        beyond: float | str = ""
        if not name.startswith(("step", BARE)):
            beyond = round(statistics.median(v - b for v, b in zip(values, times[BARE], strict=True)), 2)
        table.add(
            name,
            median_ms=round(statistics.median(values), 2),
            p95_ms=round(float(np.quantile(values, 0.95)), 2),
            beyond_bare_ms=beyond,
            rounds=rounds,
        )


@dataclass
class Load:
    """What came of a load."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    unhealthy: int = 0
    without_retry_after: int = 0


class Poster:
    """Posts one body from many threads, each over a connection of its own that it keeps."""

    def __init__(self, url: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._address = url.removeprefix("http://")
        self._request = ("POST", path, body, headers)
        self._own = threading.local()

    def post(self) -> tuple[int, bool]:
        """The status, 0 for a connection that failed; and whether it says when to come again."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = connect(self._address)
        try:
            connection.request(*self._request)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._own.connection = None
            return 0, False
        return answer.status, answer.getheader("Retry-After") is not None


def connect(address: str) -> http.client.HTTPConnection:
    """The leanest client, kept open: a general one adds a millisecond of its own."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def closed_loop(poster: Poster, at_once: int, seconds: float) -> float:
    """Answers a second when ``at_once`` clients ask without a pause."""
    started = time.monotonic()

    def client(_: int) -> int:
        answered = 0
        while time.monotonic() < started + seconds:
            answered += poster.post()[0] == 200
        return answered

    with ThreadPoolExecutor(at_once) as pool:
        answered = sum(pool.map(client, range(at_once)))
    return answered / (time.monotonic() - started)


def open_loop(poster: Poster, url: str, rate: float, seconds: float) -> Load:
    """Requests at random times, ``rate`` a second on average, whether or not earlier ones are answered."""
    rng = np.random.default_rng(1)
    load, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask() -> None:
        started = time.monotonic()
        status, retry = poster.post()
        with lock:
            load.statuses[status] += 1
            if status == 200:
                load.seconds.append(time.monotonic() - started)
            elif not retry:
                load.without_retry_after += 1

    def watch() -> None:
        connection = connect(url.removeprefix("http://"))
        while not stop.wait(0.1):
            started = time.monotonic()
            connection.request("GET", "/v2/health/live")
            answer = connection.getresponse()
            answer.read()
            load.health.append(time.monotonic() - started)
            load.unhealthy += answer.status != 200

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(256) as pool:
        due = time.monotonic()
        end = due + seconds
        while due < end:
            due += rng.exponential(1 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(ask)
    stop.set()
    watching.join()
    return load


def measure_load(table: Table, data: bytes, running: Running, seconds: float) -> None:
    """Rows of capacity and of the open loop."""
    from serving.client import encode

    body, length = encode([data], explain="overlay")
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
    poster = Poster(running.url, f"/v2/models/{TASK}/infer", body, headers)
    capacity = closed_loop(poster, 4, seconds)
    table.add("capacity, 4 clients without a pause", value=round(capacity, 1), unit="answers/s")
    for percent in (50, 100, 200):
        load = open_loop(poster, running.url, capacity * percent / 100, seconds)
        total, ok = sum(load.statuses.values()), load.statuses[200]
        refused = load.statuses[503] - load.without_retry_after
        milliseconds = [s * 1e3 for s in load.seconds] or [float("nan")]
        table.add(
            f"open loop at {percent} % of capacity",
            median_ms=round(statistics.median(milliseconds), 1),
            p95_ms=round(float(np.quantile(milliseconds, 0.95)), 1),
            requests=total,
            ok=ok,
            refused_503=refused,
            errors=total - ok - refused + load.unhealthy,
            health_worst_ms=round(max(load.health) * 1e3, 1),
        )


def measure_process(table: Table, bundle: Path, running: Running) -> None:
    """Rows of memory and of the predictor's start."""
    import httpx
    import psutil

    for name, pid in running.pids.items():
        memory = psutil.Process(pid).memory_info().rss / 2**20
        table.add(f"{name}, resident memory after all of this", value=round(memory), unit="MiB")
    imports, starts = [], []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import kserve"], check=True)
        imports.append(time.monotonic() - started)
        http = free_port()
        ports = ["--http-port", str(http), "--grpc-port", str(free_port())]
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.predictor", "--bundle", str(bundle), *ports],
            stderr=subprocess.DEVNULL,
        )
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").status_code == 200:
                    break
            time.sleep(0.02)
        starts.append(time.monotonic() - started)
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
        process.terminate()
        process.wait(60)
    table.add("predictor, resident memory when ready", value=round(memory), unit="MiB")
    table.add("KServe's own import", value=round(statistics.median(imports), 2), unit="s")
    beyond = statistics.median(s - i for s, i in zip(starts, imports, strict=True))
    table.add("predictor, ready after KServe's import", value=round(beyond, 2), unit="s")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--no-load", action="store_true", help="the steps only")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    cv2.setNumThreads(1)  # as the transformer does
    bundle = bundle_folder()
    data = encoded("JPEG", 1000, 1000, 92)
    table = Table()
    print(f"1000x1000 JPEG, {len(data)} bytes; ResNet-50 at 224; {cpu_quota()} cores")
    with served(bundle) as running:
        measure_steps(table, bundle, data, running, given.rounds)
        if not given.no_load:
            measure_load(table, data, running, given.seconds)
            measure_process(table, bundle, running)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    table.write(given.out)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
