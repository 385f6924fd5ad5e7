"""A good image in a bad place: its field, type, shape and raw bytes."""

from __future__ import annotations

from collections.abc import Iterator

from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest

from serving.client import encode
from tests.integration.serving.harness import (
    call_grpc,
    post_binary,
    post_v2,
)
from tests.integration.serving.kinds import (
    GOOD,
    TEXT,
    Kind,
    binary,
    binary_request,
    remote,
    v1,
    v2,
)


def field_kinds() -> Iterator[Kind]:
    """What is wrong with the tensor that the image is in."""
    yield Kind(
        "an image that isn't base64",
        400,
        {
            "v1": v1({"image_bytes": {"b64": "@@@not base64@@@"}}),
            "v2 json": v2(data=["@@@not base64@@@"]),
        },
    )
    yield Kind(
        "the image is missing",
        400,
        {
            "v1": v1({"explain": True}),
            "v2 json": lambda s: post_v2(s, {"inputs": []}),
            "v2 binary": lambda s: post_binary(s, b'{"inputs": []}', 14),
            "grpc": lambda s: call_grpc(s.grpc, ModelInferRequest(model_name="dr_grading")),
        },
    )
    yield Kind(
        "the field of the image has another name",
        400,
        {
            "v1": v1({"image": {"b64": TEXT}}),
            "v2 json": v2(name="picture"),
            "v2 binary": binary(name="picture"),
            "grpc": remote(lambda r: setattr(r.inputs[0], "name", "picture")),
        },
    )
    yield Kind(
        "the image is null",
        400,
        {"v1": v1(None), "v2 json": v2(data=[None]), "v2 binary": binary(shape=None)},
    )
    yield Kind(
        "numbers for an image",
        400,
        {
            "v1": v1({"image_bytes": {"b64": 12345}}),
            "v2 json": v2(data=[12345]),
            "v2 binary": lambda s: post_binary(s, *binary_request(None, {"data": [1, 2]})),
        },
    )
    yield Kind(
        "another data type",
        400,
        {
            "v2 json": v2(datatype="FP32", data=[1.0]),
            "v2 binary": binary(datatype="UINT8"),
            "grpc": remote(lambda r: setattr(r.inputs[0], "datatype", "FP32")),
        },
    )
    yield Kind(
        "a data type that there isn't",
        400,
        {
            "v2 json": v2(datatype="JPEG"),
            "v2 binary": binary(datatype="JPEG"),
            "grpc": remote(lambda r: setattr(r.inputs[0], "datatype", "JPEG")),
        },
    )
    yield Kind(
        "a shape of two with one image",
        400,
        {
            "v2 json": v2(shape=[2]),
            "v2 binary": binary(shape=[2]),
            "grpc": remote(lambda r: r.inputs[0].shape.__setitem__(0, 2)),
        },
    )
    yield Kind(
        "a shape that is negative or of two dimensions",
        400,
        {
            "v2 json": v2(shape=[1, 1]),
            "v2 binary": binary(shape=[-1]),
            "grpc": remote(lambda r: r.inputs[0].shape.__setitem__(0, -1)),
        },
    )
    yield Kind(
        "raw data that ends too soon",
        400,
        {
            "v2 binary": lambda s: post_binary(s, encode([GOOD])[0][:-50], encode([GOOD])[1]),
            "grpc": remote(lambda r: r.raw_input_contents.__setitem__(0, r.raw_input_contents[0][:-50])),
        },
    )
    yield Kind(
        "raw data that is longer than said",
        400,
        {"v2 binary": lambda s: post_binary(s, encode([GOOD])[0] + b"more", encode([GOOD])[1])},
    )
    yield Kind(
        "the binary header is missing",
        400,
        {"v2 binary": lambda s: post_binary(s, encode([GOOD])[0], None)},
    )
    yield Kind(
        "the binary header is no number",
        400,
        {"v2 binary": lambda s: post_binary(s, encode([GOOD])[0], "many")},
    )
    yield Kind(
        "the binary header is a digit, but not of the ten",
        400,
        {"v2 binary": lambda s: post_binary(s, encode([GOOD])[0], "\u00b2")},
    )
    yield Kind(
        "the binary header has 5,000 digits",
        400,
        {"v2 binary": lambda s: post_binary(s, encode([GOOD])[0], "9" * 5000)},
    )
    yield Kind(
        "the binary header is beyond the body",
        400,
        {"v2 binary": lambda s: post_binary(s, encode([GOOD])[0], 10**9)},
    )
