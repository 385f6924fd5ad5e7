from __future__ import annotations

import json

import pytest

from serving.profile import profile_document

#: S1's example, key by key.
EXAMPLE = """{"skin_type": "combination", "hair_type": "wavy", "conditions_detected": ["mild_acne"],
 "confidence_scores": {"skin_type": 0.91, "hair_type": 0.84, "condition": 0.77},
 "model_version": "4", "model_type": "tflite"}"""


def test_the_contracts_example_to_the_letter() -> None:
    # Whatever order a model has its heads in.
    answers = {
        "condition": ("mild_acne", 0.77),
        "hair_type": ("wavy", 0.84),
        "skin_type": ("combination", 0.91),
    }
    document = profile_document(answers, version="4", model_type="tflite")
    assert json.dumps(document) == json.dumps(json.loads(EXAMPLE))


@pytest.mark.parametrize(
    ("condition", "detected"), [("healthy", []), ("psoriasis", ["psoriasis"]), ("eczema", ["eczema"])]
)
def test_healthy_is_no_condition(condition: str, detected: list[str]) -> None:
    answers = {"skin_type": ("dry", 0.5), "hair_type": ("coily", 0.5), "condition": (condition, 0.5)}
    document = profile_document(answers, version="1", model_type="onnx")
    assert document["conditions_detected"] == detected
    assert document["confidence_scores"]["condition"] == 0.5
