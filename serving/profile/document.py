"""S1's document: which heads and classes it knows, and how their answers are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.errors import BundleError
from serving.core.bundle import Card, HeadCard
from serving.core.runtimes.chain import ModelType

TASK = "skin_profile"

HEADS: Mapping[str, tuple[str, ...]] = {
    "skin_type": ("normal", "dry", "oily", "combination", "sensitive"),
    "hair_type": ("straight", "wavy", "curly", "coily"),
    "condition": ("healthy", "mild_acne", "severe_acne", "eczema", "psoriasis"),
}

#: The condition that is none.
HEALTHY = "healthy"


def profile_document(
    answers: Mapping[str, tuple[str, float]], *, version: str, model_type: ModelType
) -> dict[str, Any]:
    """The document, keys in the contract's order; ``answers`` are each head's label and confidence."""
    condition = answers["condition"][0]
    return {
        "skin_type": answers["skin_type"][0],
        "hair_type": answers["hair_type"][0],
        "conditions_detected": [] if condition == HEALTHY else [condition],
        "confidence_scores": {head: answers[head][1] for head in HEADS},
        "model_version": version,
        "model_type": model_type,
    }


def check_heads(card: Card) -> None:
    """Refuse a model of other heads or classes; their order is the model's own.

    Raises:
        BundleError: it couldn't give the document.
    """
    found = {head.name: set(head.classes) for head in card.heads}
    if found != {name: set(classes) for name, classes in HEADS.items()}:
        said = "; ".join(f"{head.name} ({', '.join(head.classes)})" for head in card.heads)
        raise BundleError(
            f"The model {card.task!r} isn't a skin and hair profile: it has {said or 'no heads'}.",
            hint=f"Train the task {TASK}, whose heads are {', '.join(HEADS)}.",
        )


def plain_heads() -> tuple[HeadCard, ...]:
    """The heads without a model behind them, for the mock."""
    return tuple(HeadCard(name, classes) for name, classes in HEADS.items())
