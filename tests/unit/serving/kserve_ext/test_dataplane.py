"""Requests that upstream's data plane fails on."""

from __future__ import annotations

import pytest
from kserve import ModelRepository
from kserve.errors import InvalidInput

from data.errors import RequestError
from serving.kserve_ext.dataplane import GuardedDataPlane, read_binary

EVENT = {"ce-id": "1", "ce-source": "here", "ce-type": "t", "ce-specversion": "1.0"}
BODY = b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}]}'


async def _ready() -> bool:
    return True


@pytest.mark.parametrize(
    "header", ["\u00b2", "\u0663", "9" * 5000, "99999999999", "-1", "+1", "1_0", "", " 1"]
)
def test_a_header_that_is_no_length_is_refused_shortly(header: str) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length") as found:
        read_binary(BODY, header, "m")
    assert len(str(found.value)) < 120


def test_a_length_is_taken() -> None:
    assert read_binary(BODY, str(len(BODY)), "m").inputs[0].name == "image"


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_cloud_event_without_a_body_is_refused(kind: str) -> None:
    plane = GuardedDataPlane(ModelRepository(), _ready)
    with pytest.raises(RequestError, match="no data"):
        plane.decode(b"", {**EVENT, "content-type": kind})
    decoded, _ = plane.decode(b'{"instances": []}', {**EVENT, "content-type": "application/json"})
    assert decoded == {"instances": []}


@pytest.mark.parametrize("body", [b"", b"x", b"\xff", b"null", b"[1]", b'{"specversion": "1.0"}'])
def test_a_body_that_is_said_to_be_an_event_and_is_none_is_refused(body: bytes) -> None:
    plane = GuardedDataPlane(ModelRepository(), _ready)
    with pytest.raises((RequestError, InvalidInput)):
        plane.decode(body, {**EVENT, "content-type": "application/cloudevents+json"})
