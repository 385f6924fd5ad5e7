"""Bad requests around a good image: parameters, documents, addresses and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter

from tests.integration.serving.harness import (
    WIRES,
    Reply,
    Servers,
    ask,
    call_grpc,
    grpc_request,
    json_input,
    post,
    post_binary,
    post_v1,
    post_v2,
    refused,
)
from tests.integration.serving.kinds import (
    GOOD,
    TEXT,
    Ask,
    Kind,
    binary_request,
    remote,
    v1,
)


def request_kinds() -> Iterator[Kind]:
    """What is wrong with a request beside its image."""
    yield from _parameters()
    yield from _documents()
    yield from _addresses()
    yield from _sizes()


def _parameters() -> Iterator[Kind]:
    yield Kind(
        "an explanation that there isn't",
        400,
        {
            "v1": v1({"image_bytes": {"b64": TEXT}, "explain": "heat"}),
            **_parameter("heat"),
        },
    )
    yield Kind(
        "NaN for a parameter",
        400,
        {
            "v1": lambda s: post_v1(s, b'{"instances": [{"image_bytes": {"b64": ""}, "explain": NaN}]}'),
            "v2 json": lambda s: post_v2(
                s, {"inputs": [json_input([GOOD])], "parameters": {"explain": np.nan}}
            ),
            "v2 binary": lambda s: post_binary(s, *binary_request(GOOD, {}, {"explain": np.nan})),
        },
    )
    yield Kind(
        "a huge number for a parameter",
        400,
        {"v1": v1({"image_bytes": {"b64": TEXT}, "explain": 10**300}), **_parameter(2**62)},
    )
    yield Kind(
        "a list for a parameter",
        400,
        {
            "v1": v1({"image_bytes": {"b64": TEXT}, "explain": ["map"]}),
            "v2 json": lambda s: post_v2(
                s, {"inputs": [json_input([GOOD])], "parameters": {"explain": ["map"]}}
            ),
            "v2 binary": lambda s: post_binary(s, *binary_request(GOOD, {}, {"explain": ["map"]})),
        },
    )
    yield Kind(
        "an output that there isn't",
        400,
        {
            "v2 json": lambda s: post_v2(s, {"inputs": [json_input([GOOD])], "outputs": [{"name": "age"}]}),
            "grpc": remote(lambda r: r.outputs.add(name="age")),
        },
    )


def _documents() -> Iterator[Kind]:
    yield Kind(
        "not JSON",
        400,
        {
            "v1": lambda s: post_v1(s, b'{"instances": ['),
            "v2 json": lambda s: post_v2(s, b'{"inputs": ['),
            "v2 binary": lambda s: post_binary(s, b'{"inputs": [', 12),
        },
    )
    yield Kind(
        "JSON, but a list",
        400,
        {
            "v1": lambda s: post_v1(s, b"[1, 2]"),
            "v2 json": lambda s: post_v2(s, b"[1, 2]"),
            "v2 binary": lambda s: post_binary(s, b"[1, 2]", 6),
        },
    )
    yield Kind(
        "JSON nested 100,000 deep",
        400,
        {
            "v1": lambda s: post_v1(s, b"[" * 100_000),
            "v2 json": lambda s: post_v2(s, b"[" * 100_000),
            "v2 binary": lambda s: post_binary(s, b"[" * 100_000, 100_000),
        },
    )
    yield Kind(
        "an empty body",
        400,
        {
            "v1": lambda s: post_v1(s, b""),
            "v2 json": lambda s: post_v2(s, b""),
            "v2 binary": lambda s: post_binary(s, b"", 0),
        },
    )
    event = {"ce-id": "1", "ce-source": "here", "ce-type": "t", "ce-specversion": "1.0"}
    yield Kind("a cloud event with an empty body", 400, {"v1": lambda s: post_v1(s, b"", headers=event)})


def _addresses() -> Iterator[Kind]:
    yield Kind("a model that there isn't", 404, _elsewhere("age_from_xray"))
    yield Kind("a model's name that climbs out", 404, _elsewhere("..%2F..%2Fetc"))
    yield Kind(
        "a model is to be unloaded",
        403,
        {"v2 json": lambda s: refused(post(f"{s.url}/v2/repository/models/dr_grading/unload"))},
    )
    yield Kind(
        "a version of a model",
        501,
        {"v2 json": lambda s: refused(post(f"{s.url}/v2/models/dr_grading/versions/3/infer",
                                                 json={"inputs": [json_input([GOOD])]}))},
    )  # fmt: skip


def _sizes() -> Iterator[Kind]:
    big = bytes(9 * 2**20)

    def pieces() -> Iterator[bytes]:
        yield b'{"instances": "'
        for _ in range(9 * 16):
            yield b"x" * 65536

    def chunked(servers: Servers, path: str, headers: dict[str, str]) -> Reply:
        response = post(f"{servers.url}{path}", content=pieces(), headers=headers)
        return refused(response)

    infer = "/v2/models/dr_grading/infer"
    as_json = {"Content-Type": "application/json"}
    octets = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "10"}
    yield Kind(
        "a body over the limit",
        413,
        {
            "v1": lambda s: post_v1(s, big),
            "v2 json": lambda s: post_v2(s, big),
            "v2 binary": lambda s: post_binary(s, big, 10),
            "grpc": lambda s: call_grpc(s.grpc, grpc_request([big])),
        },
    )
    yield Kind(
        "a body over the limit, in chunks of unsaid length",
        413,
        {
            "v1": lambda s: chunked(s, "/v1/models/dr_grading:predict", as_json),
            "v2 json": lambda s: chunked(s, infer, as_json),
            "v2 binary": lambda s: chunked(s, infer, octets),
        },
    )


def _parameter(value: Any) -> dict[str, Ask]:
    def remote(s: Servers) -> Reply:
        request = grpc_request([GOOD])
        found = (
            InferParameter(int64_param=value)
            if isinstance(value, int)
            else InferParameter(string_param=value)
        )
        request.parameters["explain"].CopyFrom(found)
        return call_grpc(s.grpc, request)

    return {
        "v2 json": lambda s: post_v2(s, {"inputs": [json_input([GOOD])], "parameters": {"explain": value}}),
        "v2 binary": lambda s: post_binary(s, *binary_request(GOOD, {}, {"explain": value})),
        "grpc": remote,
    }


def _elsewhere(name: str) -> dict[str, Ask]:
    def over(wire: str) -> Ask:
        return lambda servers: ask(servers, wire, [GOOD], task=name)

    return {wire: over(wire) for wire in WIRES}
