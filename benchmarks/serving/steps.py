"""Every step and every wire at concurrency 1."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.bundle import SETTINGS, TASK
from benchmarks.serving.servers import Running, connect, plain_kserve
from benchmarks.serving.table import Table
from data.quality import PROFILES, assess

BARE = "ONNX session alone, logits and map"


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
