"""What is read from a client's request."""

from __future__ import annotations

from typing import Any

import pytest
from kserve import InferInput, InferRequest

from data.errors import RequestError
from serving.kserve_ext.errors import TooLarge
from serving.transformer.questions import Question, from_v1, from_v2

IMAGE = {"image_bytes": {"b64": "YQ=="}}


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (True, "overlay"),
        (False, ""),
        (None, ""),
        ("overlay", "overlay"),
        ("Map", "map"),
        ("", ""),
        ("false", ""),
    ],
)
def test_v1_modes(value: Any, mode: str) -> None:
    question = from_v1({"instances": [IMAGE | {"explain": value}]}, explain=False, max_batch=3)
    assert question == Question(("YQ==",), (mode,))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, 0, 1.0, "heat", [], {}, float("nan")])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(RequestError, match=r"instances\.0\.explain"):
        from_v1({"instances": [IMAGE | {"explain": value}]}, explain=False, max_batch=3)


def test_the_explain_verb_is_an_overlay_for_all() -> None:
    body = {"instances": [IMAGE, IMAGE | {"explain": "map"}, IMAGE | {"explain": False}]}
    assert from_v1(body, explain=True, max_batch=3).explain == ("overlay",) * 3


def test_bytes_are_parsed() -> None:
    assert from_v1(
        b'{"instances": [{"image_bytes": {"b64": "YQ=="}}]}', explain=False, max_batch=3
    ).images == ("YQ==",)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", None, [], {}, {"instances": None}, {"instances": {}}, {"instances": []},
     {"instances": ["YQ=="]}, {"instances": [{"image_bytes": "YQ=="}]},
     {"instances": [{"image_bytes": {"b64": None}}]}],
)  # fmt: skip
def test_malformed_bodies_are_refused(body: Any) -> None:
    with pytest.raises(RequestError):
        from_v1(body, explain=False, max_batch=3)


@pytest.mark.parametrize(
    ("value", "mode"), [("overlay", "overlay"), (False, ""), (None, ""), ("map", "map"), (True, "overlay")]
)
def test_v2_modes(value: Any, mode: str) -> None:
    parameters = {} if value is None else {"explain": value}
    request = InferRequest(
        "m", [InferInput("image", [2], "BYTES", data=["YQ==", "Yg=="])], parameters=parameters
    )
    assert from_v2(request, max_batch=3) == Question(("YQ==", "Yg=="), (mode, mode))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "asked"),
    [(True, True), ("true", True), ("True", True), (False, False), ("false", False), (None, False)],
)
def test_v2_features(value: Any, asked: bool) -> None:
    given = {} if value is None else {"features": value}
    request = InferRequest("m", [InferInput("image", [1], "BYTES", data=["YQ=="])], parameters=given)
    assert from_v2(request, max_batch=3).features is asked


@pytest.mark.parametrize("value", [1, 0, 1.0, "yes", "overlay"])
def test_other_words_for_features_are_refused(value: Any) -> None:
    request = InferRequest(
        "m", [InferInput("image", [1], "BYTES", data=["YQ=="])], parameters={"features": value}
    )
    with pytest.raises(RequestError, match=r"parameters\.features is true or false"):
        from_v2(request, max_batch=3)


def test_the_limit_of_a_batch_comes_before_the_images() -> None:
    with pytest.raises(TooLarge, match="3 images are over the limit of 2"):
        from_v1({"instances": [None] * 3}, explain=False, max_batch=2)
    with pytest.raises(TooLarge):
        from_v2(InferRequest("m", [InferInput("image", [3], "BYTES", data=[None] * 3)]), max_batch=2)
