"""The kinds of bad input, one entry each: what is sent over each wire, and what must come back.

``WANT`` is HTTP's status; gRPC's follows from it. A kind that a wire can't express is left out there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferRequest

from serving.client import encode
from tests.integration.serving import pictures
from tests.integration.serving.harness import (
    WIRES,
    Reply,
    Servers,
    ask,
    call_grpc,
    grpc_request,
    json_input,
    post_binary,
    post_v1,
    post_v2,
    refused,
)

GRPC = {
    200: "OK",
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    501: "UNIMPLEMENTED",
}

Ask = Callable[[Servers], Reply]


@dataclass(frozen=True)
class Kind:
    """``want`` is the HTTP status; ``verdict`` what the first image is told when it is answered."""

    name: str
    want: int
    asks: Mapping[str, Ask]
    verdict: str = ""


GOOD = pictures.file(pictures.sharp(), "png")
JPEG = pictures.file(pictures.sharp(), "jpeg")


def all_kinds() -> Iterator[Kind]:
    """Every kind that the transformer is shown."""
    yield from _files()
    yield from _batches()
    yield from _requests()
    yield from _sizes()


def _image(name: str, want: int, data: bytes, verdict: str = "", task: str = "dr_grading") -> Kind:
    return _images(name, want, [data], verdict, task)


def _images(
    name: str, want: int, files: Sequence[bytes], verdict: str = "", task: str = "dr_grading"
) -> Kind:
    def over(wire: str) -> Ask:
        return lambda servers: ask(servers, wire, files, task=task)

    return Kind(name, want, {wire: over(wire) for wire in WIRES}, verdict)


def _strip(width: int, height: int) -> bytes:
    return pictures.file(np.full((height, width, 3), 120, np.uint8), "png")


def _files() -> Iterator[Kind]:
    yield _image("a JPEG cut in half", 422, JPEG[: len(JPEG) // 2])
    yield _image("a PNG cut in half", 422, GOOD[: len(GOOD) // 2])
    yield _image("a JPEG without its end", 422, JPEG[:-40])
    yield _image("only a JPEG's first bytes, then noise", 422, JPEG[:24] + bytes(range(256)) * 8)
    yield _image("a PNG whose pixels don't unpack", 422, pictures.png(64, 64, b"not zlib"))
    yield _image("a PNG whose header says 0 × 0", 422, pictures.png(0, 0, b""))
    yield _image("a bomb: 400 megapixels in 400 bytes", 413, pictures.bomb())
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    yield _image("a file over the limit of bytes", 413, pictures.file(noise, "png"))
    yield _image("zero bytes", 415, b"")
    yield _image("text named .jpg", 415, b"This is a photograph, honestly.\n" * 20)
    yield _image("a PDF named .png", 415, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n" + b"x" * 200)
    yield _image("an SVG", 415, b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    yield _image("an HTML error page", 415, b"<!doctype html><html><body>403</body></html>")
    yield _image("a zip archive", 415, b"PK\x03\x04" + bytes(100))
    yield _image("one pixel", 200, pictures.file(pictures.sharp()[:1, :1], "png"), "ungradable: too_small")
    black = pictures.file(np.zeros((300, 300, 3), np.uint8), "png")
    yield _image("a strip of 6,000 × 1 pixels", 200, _strip(6000, 1), "ungradable: too_small")
    yield _image("a strip of 1 × 200,000 pixels", 200, _strip(1, 200_000), "ungradable: too_small")
    # This task's pictures are cut to their middle, which must not make a giant of the strip first.
    for wide in (6000, 200_000):
        name = f"a strip of {wide:,} × 1 pixels, to a model that looks at the middle"
        yield _image(name, 200, _strip(wide, 1), "ungradable: too_small", "profile")
    yield _image("all black", 200, black, "ungradable: blank")
    yield _image("out of focus", 200, pictures.file(pictures.blurred(), "png"), "retake: blurred")
    yield _image("CMYK", 200, pictures.as_mode("CMYK", "jpeg"), "gradable")
    yield _image("16 bits a channel", 200, pictures.sixteen_bit(), "gradable")
    yield _image("grey", 200, pictures.as_mode("L", "jpeg"), "gradable")
    yield _image("with transparency", 200, pictures.as_mode("RGBA", "png"), "gradable")
    yield _image("a palette", 200, pictures.as_mode("P", "png"), "gradable")
    yield _image("animated GIF: the first frame", 200, pictures.animated("gif"), "gradable")
    yield _image("animated WebP: the first frame", 200, pictures.animated("webp"), "gradable")


def _batches() -> Iterator[Kind]:
    cut = GOOD[:400]
    yield _images("a batch with one damaged image: the others are answered", 200, [GOOD, cut], "gradable")
    yield _images("a batch of damaged images and others", 422, [cut, b"text"])
    yield _images("a batch of texts", 415, [b"text", b"more text"])
    yield _images("too many images in the batch", 413, [JPEG] * 17)
    yield Kind(
        "a million images of no bytes",
        413,
        {"v2 binary": lambda s: post_binary(s, *_binary(None, {"shape": [10**6]}, raw=bytes(4 * 10**6)))},
    )
    yield Kind(
        "a million images of no bytes that say they are one",
        400,
        {"v2 binary": lambda s: post_binary(s, *_binary(None, {"shape": [1]}, raw=bytes(4 * 10**6)))},
    )
    yield Kind(
        "no image at all",
        400,
        {
            "v1": lambda s: post_v1(s, {"instances": []}),
            "v2 json": lambda s: post_v2(s, {"inputs": [json_input([])]}),
            "v2 binary": lambda s: post_binary(s, *encode([])),
            "grpc": lambda s: call_grpc(s.grpc, grpc_request([])),
        },
    )


def _requests() -> Iterator[Kind]:
    text = base64.b64encode(GOOD).decode()

    def v1(*instances: Any, **more: Any) -> Ask:
        return lambda s: post_v1(s, {"instances": list(instances), **more})

    def v2(**changes: Any) -> Ask:
        return lambda s: post_v2(s, {"inputs": [json_input([GOOD]) | changes]})

    def binary(**changes: Any) -> Ask:
        return lambda s: post_binary(s, *_binary(GOOD, changes))

    def remote(change: Callable[[Any], Any]) -> Ask:
        def run(s: Servers) -> Reply:
            request = grpc_request([GOOD])
            change(request)
            return call_grpc(s.grpc, request)

        return run

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
            "v1": v1({"image": {"b64": text}}),
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
            "v2 binary": lambda s: post_binary(s, *_binary(None, {"data": [1, 2]})),
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
    yield Kind(
        "an explanation that there isn't",
        400,
        {
            "v1": v1({"image_bytes": {"b64": text}, "explain": "heat"}),
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
            "v2 binary": lambda s: post_binary(s, *_binary(GOOD, {}, {"explain": np.nan})),
        },
    )
    yield Kind(
        "a huge number for a parameter",
        400,
        {"v1": v1({"image_bytes": {"b64": text}, "explain": 10**300}), **_parameter(2**62)},
    )
    yield Kind(
        "a list for a parameter",
        400,
        {
            "v1": v1({"image_bytes": {"b64": text}, "explain": ["map"]}),
            "v2 json": lambda s: post_v2(
                s, {"inputs": [json_input([GOOD])], "parameters": {"explain": ["map"]}}
            ),
            "v2 binary": lambda s: post_binary(s, *_binary(GOOD, {}, {"explain": ["map"]})),
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
    yield Kind("a model that there isn't", 404, _elsewhere("age_from_xray"))
    yield Kind("a model's name that climbs out", 404, _elsewhere("..%2F..%2Fetc"))
    yield Kind(
        "a model is to be unloaded",
        403,
        {"v2 json": lambda s: refused(httpx.post(f"{s.url}/v2/repository/models/dr_grading/unload"))},
    )
    yield Kind(
        "a version of a model",
        501,
        {"v2 json": lambda s: refused(httpx.post(f"{s.url}/v2/models/dr_grading/versions/3/infer",
                                                 json={"inputs": [json_input([GOOD])]}))},
    )  # fmt: skip


def _sizes() -> Iterator[Kind]:
    big = bytes(9 * 2**20)

    def pieces() -> Iterator[bytes]:
        yield b'{"instances": "'
        for _ in range(9 * 16):
            yield b"x" * 65536

    def chunked(servers: Servers, path: str, headers: dict[str, str]) -> Reply:
        response = httpx.post(f"{servers.url}{path}", content=pieces(), headers=headers, timeout=30)
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
        "v2 binary": lambda s: post_binary(s, *_binary(GOOD, {}, {"explain": value})),
        "grpc": remote,
    }


def _elsewhere(name: str) -> dict[str, Ask]:
    def over(wire: str) -> Ask:
        return lambda servers: ask(servers, wire, [GOOD], task=name)

    return {wire: over(wire) for wire in WIRES}


def _binary(
    image: bytes | None, changes: dict[str, Any], parameters: Any = None, raw: bytes | None = None
) -> tuple[bytes, int]:
    body, length = encode([image] if image is not None else [])
    document = json.loads(body[:length])
    if raw is not None:
        body = body[:length] + raw
        document["inputs"][0]["parameters"]["binary_data_size"] = len(raw)
    document["inputs"][0].update(changes)
    document["parameters"].update(parameters or {})
    head = json.dumps(document).encode()
    return head + body[length:], len(head)


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
        {"v1": lambda s: refused(httpx.post(f"{s.predictor_url}/v1/models/dr_grading:predict",
                                            json={"instances": [[[[0, 0, 0]]]]}))},
    )  # fmt: skip


def _digest(servers: Servers) -> str:
    found = httpx.get(f"{servers.predictor_url}/v2/models/dr_grading").json()
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
