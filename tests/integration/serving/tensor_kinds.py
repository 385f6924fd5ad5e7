"""Bad tensors, sent to the predictor itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferRequest

from tests.integration.serving.harness import (
    Reply,
    Servers,
    call_grpc,
    get,
    post,
    post_binary,
    post_v2,
    refused,
)
from tests.integration.serving.kinds import (
    Ask,
    Kind,
)


def tensor_kinds() -> Iterator[Kind]:
    """Every kind that the predictor is shown: it takes preprocessed pixels over V2."""
    good = np.zeros((1, 64, 64, 3), np.uint8)
    yield _tensor("another version's preprocessing digest", 400, good, digest="sha256:" + "0" * 64)
    yield _tensor("no preprocessing digest", 400, good, digest=None)
    yield _tensor("pixels of another size", 400, np.zeros((1, 32, 64, 3), np.uint8))
    yield _tensor("channels first", 400, np.zeros((1, 3, 64, 64), np.uint8))
    yield _tensor("one image without the batch's dimension", 400, good[0])
    yield _tensor("an empty batch", 400, good[:0])
    yield _tensor("an empty batch of impossible pixels", 400, good[:0], shape=[0, 2**62, 2, 3])
    yield _tensor("floats", 400, good.astype(np.float32), datatype="FP32")
    yield _tensor("whole numbers of 64 bits", 400, good.astype(np.int64), datatype="INT64")
    yield _tensor("the right shape, too few values", 400, good, shape=[2, 64, 64, 3])
    yield _tensor("a negative shape", 400, good, shape=[-1, 64, 64, 3])
    yield _tensor("another name", 400, good, name="pixels")
    yield _tensor("too many images", 413, np.zeros((33, 64, 64, 3), np.uint8))
    yield _tensor("a word for `explain`", 400, good, explain="overlay")
    values = [256] * good.size
    yield Kind(
        "values over 255", 400, {"v2 json": _over_json({"data": values}), "grpc": _over_contents(values)}
    )
    yield Kind("values that aren't whole", 400, {"v2 json": _over_json({"data": [0.5] * good.size})})
    yield Kind("values that aren't numbers", 400, {"v2 json": _over_json({"data": ["a"] * good.size})})
    yield Kind("lists of unequal length", 400, {"v2 json": _over_json({"data": [[1, 2], [3]]})})
    yield Kind(
        "V1",
        400,
        {"v1": lambda s: refused(post(f"{s.predictor_url}/v1/models/dr_grading:predict",
                                            json={"instances": [[[[0, 0, 0]]]]}))},
    )  # fmt: skip


def _digest(servers: Servers) -> str:
    found = get(f"{servers.predictor_url}/v2/models/dr_grading").json()
    return str(found["parameters"]["preprocessing_digest"])


def _tensor(
    kind: str,
    want: int,
    values: np.ndarray,
    *,
    digest: str | None = "",
    datatype: str = "UINT8",
    shape: list[int] | None = None,
    explain: Any = None,
    **changes: Any,
) -> Kind:
    tensor = {"name": "image", "datatype": datatype, "shape": shape or list(values.shape), **changes}

    def parameters(servers: Servers) -> dict[str, Any]:
        chosen = _digest(servers) if digest == "" else digest
        found = {} if chosen is None else {"preprocessing_digest": chosen}
        return found if explain is None else {**found, "explain": explain}

    def as_json(s: Servers) -> Reply:
        body = {"inputs": [{**tensor, "data": values.reshape(-1).tolist()}], "parameters": parameters(s)}
        return post_v2(s, body, url=s.predictor_url)

    def as_binary(s: Servers) -> Reply:
        raw = values.tobytes()
        item = {**tensor, "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [item], "parameters": parameters(s)}).encode()
        return post_binary(s, head + raw, len(head), url=s.predictor_url)

    def as_grpc(s: Servers) -> Reply:
        request = ModelInferRequest(model_name="dr_grading")
        for key, value in parameters(s).items():
            request.parameters[key].CopyFrom(InferParameter(string_param=value))
        request.inputs.add(**tensor)
        request.raw_input_contents.append(values.tobytes())
        return call_grpc(s.predictor_grpc, request)

    return Kind(kind, want, {"v2 json": as_json, "v2 binary": as_binary, "grpc": as_grpc})


def _over_json(changes: dict[str, Any]) -> Ask:
    def run(s: Servers) -> Reply:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 64, 64, 3], **changes}
        body = {"inputs": [tensor], "parameters": {"preprocessing_digest": _digest(s)}}
        return post_v2(s, body, url=s.predictor_url)

    return run


def _over_contents(values: list[int]) -> Ask:
    def run(s: Servers) -> Reply:
        request = ModelInferRequest(model_name="dr_grading")
        request.parameters["preprocessing_digest"].CopyFrom(InferParameter(string_param=_digest(s)))
        tensor = request.inputs.add(name="image", datatype="UINT8", shape=[1, 64, 64, 3])
        tensor.contents.uint_contents.extend(values)
        return call_grpc(s.predictor_grpc, request)

    return run
