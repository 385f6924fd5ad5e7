"""From a model's answer to S2's words: a grade from 0 to 4, its severity, its probabilities."""

from __future__ import annotations

from typing import Any

from serving.gateway.models import Answer

TASK = "dr_grading"
HEAD = "grade"
CLASSES = ("no_dr", "mild", "moderate", "severe", "proliferative")
#: The contract's five severities in the contract's words. The place in the list is the grade.
SEVERITIES = ("No DR", "Mild", "Moderate", "Severe non-proliferative", "Proliferative")


def grade(answer: Answer) -> dict[str, Any]:
    """``dr_severity, confidence_score, grade, probabilities, uncertain, set, model``.

    ``confidence_score`` is the calibrated probability of ``dr_severity``; ``set`` are the severities that the
    model can't rule out at the coverage of its card. ``uncertain`` says that a person should look.

    Raises:
        NotGradable: the image isn't good enough. There is no grade for it, and none is made up.
        ServingError: it is another kind of model.
    """
    reply = answer.reply
    head = reply.head(HEAD, CLASSES)
    named = dict(zip(CLASSES, SEVERITIES, strict=True))
    model = reply.model
    return {
        "dr_severity": named[head.label],
        "confidence_score": head.confidence,
        "grade": CLASSES.index(head.label),
        "probabilities": {named[label]: value for label, value in head.probabilities.items()},
        "uncertain": head.uncertain,
        "set": [named[label] for label in head.members],
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
    }
