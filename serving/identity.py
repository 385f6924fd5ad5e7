"""Who answers. Apart from the rest, so that a predictor needs no image library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.core.bundle import Card
from serving.source import Served


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Who answers: the model's name on the wire, its registry version, its bundle's digest, the precision.

    ``task``, ``dataset_digest`` and ``code_digest`` are the bundle's card's: what it answers, and which data
    and which code made it. ``runtime`` is what runs the model (``tflite 2.1.6``). These are empty where only
    a V1 document is at hand, which has the first four.
    """

    name: str
    version: str
    digest: str
    precision: str
    task: str = ""
    dataset_digest: str = ""
    code_digest: str = ""
    runtime: str = ""

    @classmethod
    def of(cls, served: Served, card: Card, precision: str, runtime: str = "") -> ModelInfo:
        """The identity of a served bundle at a precision, run by ``Runtime.name``."""
        return cls(
            name=served.name,
            version=served.version,
            digest=served.digest,
            precision=precision,
            task=card.task,
            dataset_digest=card.dataset.digest,
            code_digest=card.code_digest,
            runtime=runtime,
        )

    @classmethod
    def of_parameters(cls, given: Mapping[str, str]) -> ModelInfo:
        """The inverse of :meth:`parameters`; a predictor of an earlier release says the first four alone.

        Raises:
            KeyError: one of the four is missing.
        """
        return cls(
            given["name"],
            given["version"],
            given["digest"],
            given["precision"],
            given.get("task", given["name"]),
            given.get("dataset_digest", ""),
            given.get("code_digest", ""),
            given.get("runtime", ""),
        )

    def to_dict(self) -> dict[str, str]:
        """V1's ``model``: these four keys and no other (contract S5)."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "precision": self.precision,
        }

    def parameters(self) -> dict[str, str]:
        """The parameters of a V2 response and of the metadata: the four, whence the bundle, what runs it."""
        return {
            **self.to_dict(),
            "task": self.task,
            "dataset_digest": self.dataset_digest,
            "code_digest": self.code_digest,
            "runtime": self.runtime,
        }
