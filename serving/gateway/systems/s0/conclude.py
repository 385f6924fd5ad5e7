"""What S0 concludes from a measure and the models' answers: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from data.errors import ImageDamaged
from serving.gateway.models import Answer
from serving.gateway.systems.s0.forms import LONGEST


def blur_score(data: bytes) -> float:
    """Variance of the Laplacian of the grey image as it was sent, whatever its size.

    Thresholds in the field were set on the number that plain OpenCV gives (``imdecode`` in colour, which
    turns by EXIF and cuts 16 bits to 8; ``BGR2GRAY``; a ``CV_64F`` Laplacian; numpy's variance), so it is
    those four calls and nothing else. ``data`` is known to be an image within the limits.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ImageDamaged("The image can't be decoded whole.")
    return float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


def quality_of(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """The models' verdict on the image: the first that isn't good, or that it is good; None without one."""
    verdicts = [{"verdict": a.reply.verdict, "reasons": list(a.reply.reasons)} for a in answers]
    return next((v for v in verdicts if v["verdict"] != "gradable"), verdicts[0] if verdicts else None)


def conclude(score: float, sharp: float, sure: float, answers: Sequence[Answer]) -> dict[str, Any]:
    """``status, message, blur_score, predictions, quality``.

    Predictions are in the order of the models, each model's likeliest class first. A blurred image gets no
    label whatever a model says of it; of ``answers`` only the quality is told then.
    """
    quality = quality_of(answers)
    base: dict[str, Any] = {"blur_score": score, "predictions": [], "quality": quality}
    if score < sharp:
        message = f"Image is blurred: score {score:.1f} is below the threshold {sharp:.1f}. Take it again."
        return {"status": "fail", "message": message, **base}
    if quality is None or quality["verdict"] != "gradable":
        reasons = ", ".join(quality["reasons"]) or quality["verdict"] if quality else "no model was asked"
        return {
            "status": "fail",
            "message": f"Image can't be judged ({reasons}). Take it again.",
            **base,
        }
    # The task and not the model's name: a challenger has another.
    heads = [(a.origin.task, head) for a in answers for head in a.reply.heads.values()]
    base["predictions"] = [
        {"label": label, "confidence": value, "task": task}
        for task, head in heads
        for label, value in sorted(head.probabilities.items(), key=lambda item: -item[1])
    ]
    unsure = unsure_of(answers, sure)
    if unsure:
        message = f"No confident answer ({', '.join(unsure)} below {sure:.2f}). Ask a clinician."
        return {"status": "uncertain", "message": message, **base}
    return {"status": "success", "message": "Image is sharp and was classified.", **base}


def unsure_of(answers: Sequence[Answer], sure: float) -> list[str]:
    """The tasks whose model's top confidence is below ``sure``, the least confident first."""
    tops = [(top, a.origin.task) for a in answers if (top := top_of(a.document)) is not None]
    return [task for top, task in sorted(tops) if top < sure]


def top_of(document: Mapping[str, Any]) -> float | None:
    """The lowest of a document's heads' confidences; None where it has none."""
    return min((float(head["confidence"]) for head in document["heads"].values()), default=None)


def task_of(payload: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The task that a case is about, as far as anybody can tell.

    ``payload`` is what the app sent, ``found`` the documents of its image's predictions by task. The app's
    own word (``task``) holds. Else it is the task of the predictions that it sent, by their ``task`` or by
    their labels; where those are several, or it sent none, the one whose model was least sure: that is the
    answer to doubt.
    """
    own = payload.get("task")
    if _is_name(own):
        return str(own)
    named: dict[str, None] = {}
    for item in payload.get("predictions") or []:
        if isinstance(item, Mapping):
            if _is_name(item.get("task")):
                named[str(item["task"])] = None
            else:
                named.update(dict.fromkeys(_with_label(found, item.get("label"))))
    tops = {task: top_of(document) for task, document in found.items() if not named or task in named}
    known = {task: top for task, top in tops.items() if top is not None}
    return min(known, key=known.__getitem__) if known else next(iter([*named, *tops]), None)


def _with_label(found: Mapping[str, Mapping[str, Any]], label: Any) -> list[str]:
    if not isinstance(label, str):
        return []
    return [
        task
        for task, document in found.items()
        if any(label in head["probabilities"] for head in document["heads"].values())
    ]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST
