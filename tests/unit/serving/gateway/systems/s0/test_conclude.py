"""S0's conclusions: the blur score is plain OpenCV's, and no blurred or refused image gets a label."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.errors import ImageDamaged
from serving.gateway.models import Answer
from serving.gateway.systems.s0.conclude import blur_score, conclude, quality_of, task_of, unsure_of
from serving.replies import ModelReply
from tests.gateway_live import photograph
from tests.gateway_rows import ORIGIN

LESION = {"nv": 0.7, "mel": 0.2, "bcc": 0.1}
ACNE = {"no_acne": 0.45, "acne": 0.55}


def answer(
    task: str,
    probabilities: dict[str, float] | None,
    *,
    verdict: str = "gradable",
    reasons: tuple[str, ...] = (),
    uncertain: bool = False,
) -> Answer:
    heads: dict[str, Any] = {}
    if probabilities is not None:
        label = max(probabilities, key=probabilities.__getitem__)
        heads["head"] = {
            "label": label,
            "confidence": probabilities[label],
            "probabilities": probabilities,
            "set": [label],
            "uncertain": uncertain,
        }
    document = {
        "quality": {"verdict": verdict, "reasons": list(reasons)},
        "heads": heads,
        "model": {"name": task, "version": "1", "digest": "sha256:b", "precision": "fp32"},
    }
    origin = dataclasses.replace(ORIGIN, task=task, model_name=task)
    return Answer(document, ModelReply.read(document), b"", origin)


def pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    rng = np.random.default_rng(7)
    colours = rng.integers(0, 256, (61, 83, 3), np.uint8)
    photo = Image.fromarray(colours)
    found = {
        "jpeg": photograph(3),
        "blurred": photograph(3, blurred=True),
        "png": photograph(3, kind=".png"),
        "bmp": photograph(3, kind=".bmp"),
        "webp": photograph(3, kind=".webp"),
        "tiff": photograph(3, kind=".tiff"),
        "grey": pillow(photo.convert("L"), "png"),
        "palette": pillow(photo.convert("P"), "png"),
        "alpha": pillow(photo.convert("RGBA"), "png"),
        "gif": pillow(photo.convert("P"), "gif"),
        "cmyk": pillow(photo.convert("CMYK"), "jpeg"),
        "one pixel": pillow(photo.resize((1, 1)), "png"),
        "flat": pillow(Image.new("RGB", (40, 30), (10, 200, 30)), "png"),
    }
    for depth in (".png", ".tiff"):
        written, data = cv2.imencode(depth, rng.integers(0, 2**16, (31, 47, 3), np.uint16))
        assert written
        found[f"16 bits {depth}"] = data.tobytes()
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        found[f"turned {turn}"] = pillow(photo, "jpeg", exif=exif, quality=95)
    return found


@pytest.mark.parametrize("name", pictures())
def test_the_blur_score_is_plain_opencvs_to_the_last_bit(name: str) -> None:
    data = pictures()[name]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var()
    assert blur_score(data) == float(expected)


def test_turning_by_exif_changes_the_score_by_rounding_only() -> None:
    """So that it doesn't matter for a threshold which of the two ways an old installation decoded."""
    found = pictures()
    scores = [blur_score(found[f"turned {turn}"]) for turn in range(1, 9)]
    assert scores == pytest.approx([scores[0]] * 8, rel=1e-12)


def test_what_cant_be_decoded_has_no_score() -> None:
    with pytest.raises(ImageDamaged):
        blur_score(photograph(1)[:2000])


def test_sharp_and_sure() -> None:
    said = conclude(300.0, 100.0, 0.5, [answer("skin_lesion", LESION), answer("acne", ACNE)])
    assert said["status"] == "success"
    assert said["quality"] == {"verdict": "gradable", "reasons": []}
    assert [(p["task"], p["label"], p["confidence"]) for p in said["predictions"]] == [
        ("skin_lesion", "nv", 0.7),
        ("skin_lesion", "mel", 0.2),
        ("skin_lesion", "bcc", 0.1),
        ("acne", "acne", 0.55),
        ("acne", "no_acne", 0.45),
    ]


def test_one_unsure_model_makes_the_answer_uncertain() -> None:
    answers = [answer("skin_lesion", LESION), answer("acne", ACNE)]
    said = conclude(300.0, 100.0, 0.6, answers)
    assert said["status"] == "uncertain"
    assert said["message"].startswith("No confident answer (acne below 0.60)")
    assert len(said["predictions"]) == 5
    assert unsure_of(answers, 0.6) == ["acne"]
    assert unsure_of(answers, 0.9) == ["acne", "skin_lesion"]


@given(
    score=st.floats(0, 99.99),
    verdict=st.sampled_from(["gradable", "retake", "ungradable"]),
    asked=st.booleans(),
)
def test_a_blurred_image_never_gets_a_label(score: float, verdict: str, asked: bool) -> None:
    given_heads = LESION if verdict == "gradable" else None
    answers = [answer("skin_lesion", given_heads, verdict=verdict)] if asked else []
    said = conclude(score, 100.0, 0.5, answers)
    assert said["status"] == "fail"
    assert said["predictions"] == []
    assert f"{score:.1f}" in said["message"]
    assert "100.0" in said["message"]
    assert said["quality"] == ({"verdict": verdict, "reasons": []} if asked else None)


def test_at_the_threshold_it_is_sharp() -> None:
    assert conclude(100.0, 100.0, 0.5, [answer("skin_lesion", LESION)])["status"] == "success"
    assert conclude(100.0, 100.0, 0.7, [answer("skin_lesion", LESION)])["status"] == "success"


def test_an_image_that_one_model_refuses_gets_no_label_at_all() -> None:
    refused = answer("acne", None, verdict="ungradable", reasons=("blank",))
    said = conclude(300.0, 100.0, 0.5, [answer("skin_lesion", LESION), refused])
    assert said["status"] == "fail"
    assert said["predictions"] == []
    assert "blank" in said["message"]
    assert said["quality"] == quality_of([refused]) == {"verdict": "ungradable", "reasons": ["blank"]}


def test_without_any_model_nothing_is_made_up() -> None:
    said = conclude(300.0, 100.0, 0.5, [])
    assert said["status"] == "fail"
    assert said["predictions"] == []


FOUND = {
    "skin_lesion": answer("skin_lesion", LESION).document,
    "acne": answer("acne", ACNE).document,
}


@pytest.mark.parametrize(
    ("payload", "task"),
    [
        ({"task": "skin_profile"}, "skin_profile"),
        ({"task": ""}, "acne"),
        ({"task": 7}, "acne"),
        ({}, "acne"),
        ({"predictions": None}, "acne"),
        ({"predictions": ["nv", 1, None]}, "acne"),
        ({"predictions": [{"label": "mel"}]}, "skin_lesion"),
        ({"predictions": [{"label": "mel", "task": "skin_lesion"}]}, "skin_lesion"),
        ({"predictions": [{"label": "mel"}, {"label": "acne"}]}, "acne"),
        ({"predictions": [{"label": "unheard of"}]}, "acne"),
        ({"predictions": [{"label": "x", "task": "hair"}]}, "hair"),
        ({"predictions": [{"label": ["nv"]}]}, "acne"),
    ],
)
def test_the_task_of_a_case(payload: dict[str, Any], task: str) -> None:
    assert task_of(payload, FOUND) == task


def test_a_case_of_an_unknown_image_has_the_task_that_it_says_or_none() -> None:
    assert task_of({}, {}) is None
    assert task_of({"predictions": [{"label": "nv"}]}, {}) is None
    assert task_of({"predictions": [{"label": "nv", "task": "skin_lesion"}]}, {}) == "skin_lesion"
    refused = answer("acne", None, verdict="retake").document
    assert task_of({}, {"acne": refused}) == "acne"
