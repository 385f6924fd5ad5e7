"""What a kept answer's document says, the same way for classifiers and for anomaly models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: An anomaly model answers without a head. Its labels are of this one, as in ``training/tasks/anomaly.yaml``.
STATUS = "status"
STATUSES = ("ok", "ng")


def heads_of(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each head's ``label``, ``probabilities``, ``set``, ``uncertain`` …; none where there is no answer.

    An anomaly model's label stands alone: nothing calibrates a probability of it, and without a threshold
    there is no label either (None).
    """
    found = document.get("anomaly")
    if found is not None:
        return {STATUS: {"label": found["label"], "probabilities": {}, "set": [], "uncertain": False}}
    return dict(document.get("heads", {}))


def classes_of(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each head's classes, for a reader to choose from."""
    return {
        name: STATUSES if name == STATUS and not head["probabilities"] else tuple(head["probabilities"])
        for name, head in heads_of(document).items()
    }


def labels_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Each head's label; heads without one are left out."""
    return {name: str(head["label"]) for name, head in heads_of(document).items() if head["label"]}
