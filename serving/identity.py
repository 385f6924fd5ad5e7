"""Who answers. Apart from the rest, so that a predictor needs no image library."""

from __future__ import annotations

from dataclasses import dataclass

from serving.source import Served


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Who answers."""

    name: str
    version: str
    digest: str
    precision: str

    @classmethod
    def of(cls, served: Served, precision: str) -> ModelInfo:
        """The identity of a served bundle at a precision."""
        return cls(served.task, served.version, served.digest, precision)

    def to_dict(self) -> dict[str, str]:
        """Plain values."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "precision": self.precision,
        }
