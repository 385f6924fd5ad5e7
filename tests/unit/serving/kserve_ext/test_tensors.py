"""Reading and writing V2 tensors."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from kserve import InferInput, InferRequest

from data.errors import RequestError
from serving.blobs import pack
from serving.kserve_ext.errors import TooLarge
from serving.kserve_ext.tensors import Outputs, from_base64, only_input, read_blobs, read_uint8


def tensor(
    shape: list[int], data: Any = None, raw: bytes | None = None, datatype: str = "UINT8"
) -> InferInput:
    found = InferInput("image", shape, datatype, data=data)
    found._raw_data = raw
    return found


def test_uint8_from_raw_is_not_copied_and_from_json_is_checked() -> None:
    raw = bytes(range(24))
    values = read_uint8(tensor([2, 3, 4], raw=raw))
    assert values.shape == (2, 3, 4)
    assert not values.flags.writeable
    assert np.array_equal(read_uint8(tensor([2, 3, 4], data=list(raw))), values)
    assert np.array_equal(read_uint8(tensor([2, 2], data=[[1, 2], [3, 4]])), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("shape", "data"),
    [([1], [256]), ([1], [-1]), ([1], [1.5]), ([1], [True]), ([1], ["1"]), ([1], [None]), ([2], [1]),
     ([-1], [1]), ([2], [[1], [2, 3]]), ([1], [10**30]), ([2**40, 2**40], [1])],
)  # fmt: skip
def test_what_is_no_uint8_is_refused(shape: list[int], data: list[Any]) -> None:
    with pytest.raises(RequestError):
        read_uint8(tensor(shape, data=data))


def test_blobs_from_every_form() -> None:
    assert read_blobs(tensor([2], raw=pack([b"a", b"bc"]), datatype="BYTES"), 2) == [b"a", b"bc"]
    assert read_blobs(tensor([2], data=[b"a", b"bc"], datatype="BYTES"), 2) == [b"a", b"bc"]
    assert read_blobs(tensor([1], data=["YQ=="], datatype="BYTES"), 2) == ["YQ=="]


@pytest.mark.parametrize(
    ("shape", "data"), [([1], [1]), ([1], [None]), ([2], ["a"]), ([], ["a"]), ([1, 1], ["a"])]
)
def test_what_are_no_blobs_is_refused(shape: list[int], data: list[Any]) -> None:
    with pytest.raises(RequestError):
        read_blobs(tensor(shape, data=data, datatype="BYTES"), 2)


def test_more_blobs_than_may_be_are_not_read() -> None:
    many = bytes(4 * 1000)  # a thousand of no bytes
    with pytest.raises(TooLarge, match="1000 images are over the limit of 2"):
        read_blobs(tensor([1000], raw=many, datatype="BYTES"), 2)
    with pytest.raises(RequestError, match="goes on after"):
        read_blobs(tensor([2], raw=many, datatype="BYTES"), 2)


@pytest.mark.parametrize("shape", [[0, 2**62, 2, 3], [0, 2**70, 3], [0] * 100])
def test_no_values_in_a_shape_that_cannot_be_is_refused(shape: list[int]) -> None:
    with pytest.raises(RequestError, match="can't have the shape"):
        read_uint8(tensor(shape, raw=b""))


def test_base64_is_strict() -> None:
    assert from_base64("YWI=") == b"ab"
    assert from_base64(b"raw") == b"raw"
    for wrong in ("YWI", "Y WI=", "data:image/png;base64,YWI=", "ä"):
        with pytest.raises(RequestError):
            from_base64(wrong)


def test_only_the_one_input_is_taken() -> None:
    good = InferRequest("m", [tensor([1], data=[1])])
    assert only_input(good, "image", "UINT8", "[N]").name == "image"
    for inputs in ([], [tensor([1])] * 2, [InferInput("other", [1], "UINT8")]):
        with pytest.raises(RequestError):
            only_input(InferRequest("m", inputs), "image", "UINT8", "[N]")


def outputs() -> Outputs:
    found = Outputs()
    found.texts("verdict", ["gradable"])
    found.blobs("overlay", [b"\x89PNG"])
    found.array("p", np.array([[0.5, np.nan]], np.float32))
    return found


def test_json_output_is_text_base64_and_numbers() -> None:
    answer = outputs().respond(InferRequest("m", []), version="1", parameters={"a": "b"})
    document, length = answer.to_rest()
    assert length is None
    by_name = {item["name"]: item["data"] for item in document["outputs"]}
    assert by_name["verdict"] == ["gradable"]
    assert base64.b64decode(by_name["overlay"][0]) == b"\x89PNG"
    assert by_name["p"][0] == 0.5
    assert document["parameters"] == {"a": "b"}
    assert document["id"]


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_output_is_in_the_form_of_the_input(raw: bool) -> None:
    request = InferRequest("m", [tensor([1])], raw_inputs=[b"x"] if raw else None, from_grpc=True)
    message = outputs().respond(request, version="1", parameters={"a": "b"})
    assert len(message.raw_output_contents) == (3 if raw else 0)
    if raw:
        assert list(message.raw_output_contents[:2]) == [pack([b"gradable"]), pack([b"\x89PNG"])]
    else:
        assert list(message.outputs[1].contents.bytes_contents) == [b"\x89PNG"]
    assert message.parameters["a"].string_param == "b"
