"""A classifier that answers: the runtime and the decisions together. Without a web framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import Card
from serving.core.decisions import HeadDecision, decide
from serving.core.runtimes import Runtime, open_runtime, tuned_table
from serving.features.unusual import Embedded, Sight, sight_of
from serving.kinds.base import Sink, put_embedded
from serving.kinds.classification.answers import HeadResult, HeadsForm, HeadsResult
from serving.kinds.classification.kind import KIND
from serving.source import Served

# A larger batch is run in pieces, so that a batch's activations can't grow the process without end.
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """One head's decisions for N images; ``cam`` float32 [N, h, w] is the map of each image's own label."""

    decision: HeadDecision
    cam: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class HeadsBatch:
    """Every head's decisions. See ``serving.kinds.base.Batch``."""

    card: Card
    heads: Mapping[str, HeadAnswer]
    embedded: Embedded | None = None

    def put(self, sink: Sink) -> None:
        """``<head>.probabilities``, ``.label``, ``.uncertain``, ``.set`` and, when explained, ``.cam``."""
        for head, answer in self.heads.items():
            decision = answer.decision
            sink.array(f"{head}.probabilities", decision.probabilities)
            sink.array(f"{head}.label", decision.label.astype(np.int64))
            sink.array(f"{head}.uncertain", decision.uncertain)
            sink.array(f"{head}.set", decision.set)
            if answer.cam is not None:
                sink.array(f"{head}.cam", answer.cam)
        if self.embedded is not None:
            put_embedded(sink, self.embedded)

    def results(self) -> tuple[HeadsResult, ...]:
        """One result an image."""
        count = len(next(iter(self.heads.values())).decision.label)
        return tuple(
            HeadsResult({h.name: _result(h.classes, self.heads[h.name], i) for h in self.card.heads})
            for i in range(count)
        )


@dataclass(frozen=True, slots=True)
class ClassificationEngine:
    """A proved bundle. See ``serving.kinds.base.Engine``.

    ``tuned`` is the table that ``retiderm tune`` measured for it on this kind of host, or None; ``sight`` is
    what the bundle can say of an embedding.
    """

    served: Served
    card: Card
    runtime: Runtime
    tuned: Mapping[str, Any] | None
    sight: Sight

    @property
    def precision(self) -> str:
        """The runtime's."""
        return self.runtime.precision

    @property
    def form(self) -> HeadsForm:
        """Heads and their classes."""
        return HeadsForm.of_card(self.card)

    def describe(self) -> dict[str, Any]:
        """What runs the model, and what ran how fast when it was chosen."""
        return {"runtime": self.runtime.name, "tuned": self.tuned}

    def answer(
        self, images: NDArray[np.uint8], *, explain: bool = False, features: bool = False
    ) -> HeadsBatch:
        """Answer preprocessed images, uint8 [N, H, W, 3].

        Raises:
            RequestError: the images have another shape or type.
            ServingError: the model gave something that is not a number.
        """
        explain = explain and "cam" in self.card.outputs
        features = features and "embedding" in self.card.outputs
        # A runtime computes no more than it is asked for.
        names = ("logits", *(["cam"] if explain else []), *(["embedding"] if features else []))
        parts = [
            self.runtime.run(images[i : i + _CHUNK], names) for i in range(0, max(1, len(images)), _CHUNK)
        ]
        logits = np.concatenate([part["logits"] for part in parts]) if len(parts) > 1 else parts[0]["logits"]
        cams = np.concatenate([part["cam"] for part in parts]) if explain else None
        answers = {}
        for head in self.card.heads:
            part = self.card.slices[head.name]
            decision = decide(logits[:, part], head)
            cam = None
            if cams is not None:
                cam = cams[np.arange(len(cams)), part.start + decision.label].astype(np.float32, copy=False)
            answers[head.name] = HeadAnswer(decision, cam)
        if not features:
            return HeadsBatch(self.card, answers)
        embedding = np.concatenate([part["embedding"] for part in parts])
        return HeadsBatch(self.card, answers, self.sight.embedded(embedding))


def load_classifier(served: Served, *, precision: str, threads: int | None) -> ClassificationEngine:
    """See ``serving.engine.load_engine``."""
    bundle = served.open(verify=True)
    runtime = open_runtime(bundle, precision, threads)
    sight = sight_of(bundle, KIND.embedding(bundle.card))
    return ClassificationEngine(served, bundle.card, runtime, tuned_table(bundle.digest), sight)


def _result(classes: tuple[str, ...], answer: HeadAnswer, i: int) -> HeadResult:
    decision = answer.decision
    return HeadResult(
        classes=classes,
        probabilities=decision.probabilities[i],
        label=int(decision.label[i]),
        members=decision.set[i],
        uncertain=bool(decision.uncertain[i]),
        cam=None if answer.cam is None else answer.cam[i],
    )
