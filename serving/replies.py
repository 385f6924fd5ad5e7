"""What a model answered about one image, read from the document that says it (contract S5).

A gateway gets the document over KServe, a script from a bundle in its own process; what is made of it is the
same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.errors import ImageDamaged, ImageError, ImageTooLarge, NotAnImage, NotGradable, ServingError
from serving.identity import ModelInfo

_ERRORS = {error.code: error for error in (ImageTooLarge, NotAnImage, ImageDamaged)}


@dataclass(frozen=True, slots=True)
class HeadReply:
    """One head: its label, the label's calibrated probability, and every class's."""

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    members: tuple[str, ...] = ()
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class AnomalyReply:
    """How unusual an image is. ``threshold`` is where NG begins; None for a memory without calibration."""

    score: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class ModelReply:
    """Who answered, the verdict on the image's quality, and, where that is ``gradable``, each head.

    An anomaly model has no head; ``anomaly`` is its answer.
    """

    model: ModelInfo
    verdict: str
    reasons: tuple[str, ...]
    heads: Mapping[str, HeadReply]
    anomaly: AnomalyReply | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ModelReply:
        """From a V1 document, or what ``serving.client.Reply.documents`` gives.

        Raises:
            ImageError: the document says that the image can't be used.
            ServingError: it isn't such a document.
        """
        try:
            if "error" in document:
                raise _refused(document["error"])
            quality, model = document["quality"], document["model"]
            return cls(
                ModelInfo(model["name"], model["version"], model["digest"], model["precision"]),
                quality["verdict"],
                tuple(quality["reasons"]),
                {name: _head(head) for name, head in document["heads"].items()},
                _anomaly(document.get("anomaly")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServingError(
                f"A model's answer isn't of the form that it should be ({type(error).__name__}: {error}).",
                hint="Client and server are of different versions: deploy them together.",
            ) from error

    def head(self, name: str, classes: tuple[str, ...]) -> HeadReply:
        """A head with its probabilities in the order of ``classes``.

        Raises:
            NotGradable: the image wasn't good enough for an answer.
            ServingError: the model has no such head, or one of other classes.
        """
        if self.verdict != "gradable":
            raise NotGradable(self.verdict, self.reasons)
        found = self.heads.get(name)
        if found is None or set(found.probabilities) != set(classes):
            raise ServingError(
                f"The model {self.model.name!r} gives no {name!r} of the classes {', '.join(classes)}.",
                hint=f"It is another kind of model: train the task again ({self.model.name}).",
            )
        ordered = {label: found.probabilities[label] for label in classes}
        return HeadReply(found.label, found.confidence, ordered, found.members, found.uncertain)


def _head(head: Mapping[str, Any]) -> HeadReply:
    return HeadReply(
        head["label"],
        float(head["confidence"]),
        {name: float(value) for name, value in head["probabilities"].items()},
        tuple(head["set"]),
        bool(head["uncertain"]),
    )


def _anomaly(said: Mapping[str, Any] | None) -> AnomalyReply | None:
    if said is None or said["score"] is None:
        return None
    threshold = said["threshold"]
    return AnomalyReply(float(said["score"]), None if threshold is None else float(threshold))


def _refused(error: Mapping[str, Any]) -> ImageError:
    return _ERRORS.get(error["code"], ImageError)(str(error["message"]))
