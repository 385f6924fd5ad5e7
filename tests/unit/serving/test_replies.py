from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.errors import ImageDamaged, ImageError, NotGradable, ServingError
from serving.client import Reply
from serving.identity import ModelInfo
from serving.replies import AnomalyReply, ModelReply

DOCUMENT: dict[str, Any] = {
    "quality": {"verdict": "gradable", "reasons": [], "scores": {"sharpness": 0.7}},
    "heads": {
        "acne": {
            "label": "acne",
            "confidence": 0.75,
            "probabilities": {"acne": 0.75, "no_acne": 0.25},
            "set": ["acne"],
            "uncertain": True,
        }
    },
    "model": {"name": "acne", "version": "2", "digest": "sha256:0", "precision": "fp32"},
}


def test_a_document_is_read_and_put_in_the_asked_order() -> None:
    reply = ModelReply.read(DOCUMENT)
    assert reply.model == ModelInfo("acne", "2", "sha256:0", "fp32")
    head = reply.head("acne", ("no_acne", "acne"))
    assert (head.label, head.confidence, head.members, head.uncertain) == ("acne", 0.75, ("acne",), True)
    assert list(head.probabilities.items()) == [("no_acne", 0.25), ("acne", 0.75)]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0.5), (None, None)])
def test_an_anomaly_models_answer_has_a_score_and_no_head(
    threshold: float | None, expected: float | None
) -> None:
    said = {"score": 0.75, "threshold": threshold, "label": "ng", "regions": []}
    reply = ModelReply.read({**DOCUMENT, "heads": {}, "anomaly": said})
    assert reply.anomaly == AnomalyReply(0.75, expected)
    assert ModelReply.read(DOCUMENT).anomaly is None


def test_the_kserve_clients_reply_is_read_alike() -> None:
    outputs = {
        "verdict": [b"gradable"],
        "reasons": [b"[]"],
        "error": [b""],
        "acne.label": [b"acne"],
        "acne.probabilities": np.array([[0.75, 0.25]], np.float32),
        "acne.set": np.array([[True, False]]),
        "acne.uncertain": np.array([True]),
    }
    parameters = {**DOCUMENT["model"], "classes": '{"acne": ["acne", "no_acne"]}'}
    (document,) = Reply(outputs, parameters).documents()
    assert ModelReply.read(document) == ModelReply.read(DOCUMENT)


def test_an_image_that_was_turned_down() -> None:
    quality = {"verdict": "retake", "reasons": ["blurred"], "scores": {}}
    reply = ModelReply.read({**DOCUMENT, "quality": quality, "heads": {}})
    with pytest.raises(NotGradable, match="blurred") as caught:
        reply.head("acne", ("no_acne", "acne"))
    assert caught.value.reasons == ("blurred",)


@pytest.mark.parametrize(("code", "error"), [("image_damaged", ImageDamaged), ("something_new", ImageError)])
def test_an_error_is_an_error(code: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="No good"):
        ModelReply.read({"error": {"code": code, "message": "No good."}})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {**DOCUMENT, "model": {}},
        {**DOCUMENT, "heads": []},
        {**DOCUMENT, "heads": {"acne": {"label": "acne"}}},
        {"error": "bad"},
        {**DOCUMENT, "quality": None},
    ],
)
def test_what_is_no_such_document_is_no_answer(document: dict[str, Any]) -> None:
    with pytest.raises(ServingError, match="isn't of the form"):
        ModelReply.read(document)


def test_another_models_heads_are_no_answer() -> None:
    reply = ModelReply.read(DOCUMENT)
    for name, classes in (("condition", ("no_acne", "acne")), ("acne", ("no", "yes"))):
        with pytest.raises(ServingError, match="gives no"):
            reply.head(name, classes)
