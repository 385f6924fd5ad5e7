"""A bundle that answers: the runtime and the decisions together. Without a web framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.core.bundle import Card
from serving.core.decisions import HeadDecision, decide
from serving.core.runtimes import Runtime, open_runtime
from serving.source import Served

# A larger batch is run in pieces, so that a batch's activations can't grow the process without end.
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """One head's decisions for N images; ``cam`` float32 [N, h, w] is the map of each image's own label."""

    decision: HeadDecision
    cam: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Engine:
    """A proved bundle. ``answer`` may be called from several threads."""

    served: Served
    card: Card
    runtime: Runtime

    def answer(self, images: NDArray[np.uint8], *, explain: bool = False) -> Mapping[str, HeadAnswer]:
        """Answer preprocessed images, uint8 [N, H, W, 3].

        Raises:
            RequestError: the images have another shape or type.
            ServingError: the model gave something that is not a number.
        """
        explain = explain and "cam" in self.card.outputs
        names = ("logits", "cam") if explain else ("logits",)
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
        return answers


def load_engine(served: Served, *, precision: str = "fp32", threads: int | None = None) -> Engine:
    """Open, verify every file, load, and hold the answers to the golden images against the stored ones.

    Raises:
        IntegrityError: the bundle was altered, is another one, or doesn't give its golden answers.
    """
    bundle = served.open(verify=True)
    return Engine(served, bundle.card, open_runtime(bundle, precision, threads))
