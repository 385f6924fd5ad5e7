"""What a classification model is to the servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from serving.core.bundle import Bundle, Card
from serving.kinds.base import Explanation
from serving.kinds.classification.answers import HeadsForm
from serving.source import Served

if TYPE_CHECKING:
    from serving.kinds.classification.engine import ClassificationEngine

NO_EXPLANATION = "This model has no explanation."


class ClassificationKind:
    """See ``serving.kinds.base.Kind``."""

    #: A class is of the whole image.
    locates = False

    def load(self, served: Served, *, precision: str, threads: int | None) -> ClassificationEngine:
        """Open, verify, load, and hold the probabilities against the golden ones."""
        # The runtimes are heavy, and a transformer, which knows kinds too, has none.
        from serving.kinds.classification.engine import load_classifier

        return load_classifier(served, precision=precision, threads=threads)

    def form(self, bundle: Bundle) -> HeadsForm:
        """Heads and their classes."""
        return HeadsForm.of_card(bundle.card)

    def form_of_response(self, parameters: Mapping[str, str]) -> HeadsForm:
        """As ``HeadsForm.parameters`` says them."""
        classes: dict[str, list[str]] = json.loads(parameters["classes"])
        return HeadsForm({head: tuple(names) for head, names in classes.items()})

    def explanation(self, card: Card) -> Explanation:
        """Grad-CAM, where the export could make it."""
        shape = card.outputs.get("cam")
        if shape is None:
            return Explanation(None, card.explanation.reason or NO_EXPLANATION, card.explanation.method)
        return Explanation((shape[1], shape[2]), None, card.explanation.method)

    def embedding(self, card: Card) -> int | None:
        """The graph's pooled features. Every precision of a card has the same outputs."""
        shape = card.outputs.get("embedding")
        return None if shape is None else shape[0]


KIND = ClassificationKind()
