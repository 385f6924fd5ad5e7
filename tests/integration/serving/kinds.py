"""A kind of bad input: what is sent over each wire, and what must come back.

``want`` is HTTP's status; gRPC's follows from it. A kind that a wire can't express is left out there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.client import encode
from tests.integration.serving import pictures
from tests.integration.serving.harness import (
    Reply,
    Servers,
    call_grpc,
    grpc_request,
    json_input,
    post_binary,
    post_v1,
    post_v2,
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
TEXT = base64.b64encode(GOOD).decode()


def v1(*instances: Any, **more: Any) -> Ask:
    """These instances over V1."""
    return lambda s: post_v1(s, {"instances": list(instances), **more})


def v2(**changes: Any) -> Ask:
    """A good image over V2, with these changes to its tensor."""
    return lambda s: post_v2(s, {"inputs": [json_input([GOOD]) | changes]})


def binary(**changes: Any) -> Ask:
    """The same, the image as raw bytes."""
    return lambda s: post_binary(s, *binary_request(GOOD, changes))


def remote(change: Callable[[Any], Any]) -> Ask:
    """A good image over gRPC, its request changed."""

    def run(s: Servers) -> Reply:
        request = grpc_request([GOOD])
        change(request)
        return call_grpc(s.grpc, request)

    return run


def binary_request(
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
