"""The gate's rules, and what it decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from data.errors import RegistryError

from .compare import LOWER_IS_BETTER, Comparison
from .fairness import SliceCheck

if TYPE_CHECKING:
    from training.spec.parts import GateSpec

Line = Literal["first version", "new test set", "same test set", "champion itself"]


@dataclass(frozen=True, slots=True)
class GateRules:
    """What a task asks of a version.

    ``floors``: a metric (``auc``: of every head that has it; ``grade.auc``: of one) and its least value, or
    its greatest for ``nll`` and ``ece``. ``margin``: how much worse ``metric`` may be than the champion's.
    ``slice_by``: columns of the test images by which the worst slice must not fall by more than
    ``slice_margin``, or ``margin`` when that is None.
    """

    floors: Mapping[str, float] = field(default_factory=dict)
    metric: str = "auc"
    margin: float = 0.01
    confidence: float = 0.95
    requires_approval: bool = False
    allowed_use: tuple[str, ...] = ()
    calibrated: bool = False
    resamples: int = 2000
    seed: int = 0
    slice_by: tuple[str, ...] = ()
    slice_margin: float | None = None
    slice_smallest: int = 30

    @property
    def slice_loss(self) -> float:
        """How much worse than the champion's the worst slice may be."""
        return self.margin if self.slice_margin is None else self.slice_margin

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> GateRules:
        """What a recorded decision was made by."""
        given = {**value, **{name: tuple(value.get(name, ())) for name in ("allowed_use", "slice_by")}}
        try:
            return cls(**given)
        except TypeError as error:
            raise RegistryError(f"The recorded gate rules can't be read: {error}.") from None

    @classmethod
    def of(cls, spec: GateSpec) -> GateRules:
        """The rules that a task file's ``gate:`` section states."""
        return cls(
            floors=dict(spec.floors),
            metric=spec.margin.metric,
            margin=spec.margin.loss,
            confidence=spec.margin.confidence,
            requires_approval=spec.requires_approval,
            allowed_use=tuple(spec.allowed_use),
            calibrated=bool(getattr(spec, "calibrated", False)),
            slice_by=tuple(spec.slices.by),
            slice_margin=spec.slices.loss,
            slice_smallest=spec.slices.smallest,
        )


@dataclass(frozen=True, slots=True)
class FloorCheck:
    """One floor and what the version shows."""

    head: str
    metric: str
    value: float | None
    floor: float
    passed: bool

    @property
    def sentence(self) -> str:
        """For people."""
        sign = "at most" if self.metric in LOWER_IS_BETTER else "at least"
        shown = "not measured" if self.value is None else f"{self.value:.4f}"
        return f"{self.head}: {self.metric} {shown}, must be {sign} {self.floor:g}."


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate said of one version, with everything that it rested on."""

    task: str
    version: str
    digest: str
    decision: Literal["accept", "refuse"]
    reasons: tuple[str, ...]
    line: Line
    champion: str | None
    test_digest: str
    comparisons: tuple[Comparison, ...]
    floors: tuple[FloorCheck, ...]
    pending_approval: bool  # everything else passed, and a person's approval is missing
    approved_by: str | None
    rules: GateRules
    decided_at: str
    slices: tuple[SliceCheck, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether it may become champion."""
        return self.decision == "accept"

    @property
    def headline(self) -> str:
        """One line for people."""
        if self.accepted:
            return "accepted"
        return "waits for a person's approval" if self.pending_approval else "refused"

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        lists = ("allowed_use", "slice_by")
        rules = {**asdict(self.rules), **{name: list(getattr(self.rules, name)) for name in lists}}
        return {
            "task": self.task,
            "version": self.version,
            "digest": self.digest,
            "decision": self.decision,
            "headline": self.headline,
            "reasons": list(self.reasons),
            "line": self.line,
            "champion": self.champion,
            "test_digest": self.test_digest,
            "comparisons": [item.to_dict() for item in self.comparisons],
            "slices": [item.to_dict() for item in self.slices],
            "floors": [{**asdict(item), "sentence": item.sentence} for item in self.floors],
            "pending_approval": self.pending_approval,
            "approved_by": self.approved_by,
            "rules": rules,
            "decided_at": self.decided_at,
        }
