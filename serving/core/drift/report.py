"""What is said of a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: From nothing to say to look at once.
SEVERITIES = ("ok", "waiting", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one window.

    - ``family``: ``inputs``, ``outputs``, or ``outcomes`` (what labels say).
    - ``statistic`` and ``threshold``: from the threshold on it alarms; None where it wasn't judged.
      For inputs and outputs 1 is what chance gives on average.
    - ``chance``: how often a window without a shift lies at least so far off.
    - ``reference``, ``now``: one figure of each side; ``effect``: 0 to 1, see ``measures``.
    - ``images``: how many were compared; ``look``: after how many images of the window.
    - ``severity``: ``ok``, ``waiting`` (not judged: ``reason`` says why), ``warning``, ``critical``.
    """

    measure: str
    family: str
    head: str | None
    severity: str
    reason: str
    statistic: float | None = None
    threshold: float | None = None
    chance: float | None = None
    reference: float | None = None
    now: float | None = None
    effect: float | None = None
    images: int = 0
    look: int = 0

    @property
    def alarm(self) -> bool:
        """Whether it is too far off for chance."""
        return self.severity in ("warning", "critical")


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The judgement on one window. ``images`` came, ``look`` of them were judged (0: too few as yet)."""

    task: str
    digest: str
    images: int
    look: int
    size: int
    level: float
    findings: tuple[Finding, ...]

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that alarm, the gravest first."""
        found = [finding for finding in self.findings if finding.alarm]
        return tuple(
            sorted(found, key=lambda f: (-SEVERITIES.index(f.severity), -(f.effect or 0.0), f.measure))
        )

    @property
    def alarm(self) -> bool:
        """Whether any measure alarms."""
        return bool(self.alarms)

    @property
    def severity(self) -> str:
        """The gravest of the findings; ``waiting`` where nothing could be judged yet."""
        if self.alarms:
            return self.alarms[0].severity
        return "ok" if any(finding.severity == "ok" for finding in self.findings) else "waiting"

    @property
    def reason(self) -> str:
        """One sentence on the whole."""
        if self.alarms:
            more = len(self.alarms) - 1
            others = f" ({more} more measure{'s' if more > 1 else ''} alarmed)" if more else ""
            return self.alarms[0].reason + others
        if self.severity == "waiting":
            return f"Nothing is judged yet: {self.images} images have come."
        return f"No shift beyond chance in {self.look} images."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the summary beside the findings."""
        return {
            "format": 1,
            "task": self.task,
            "bundle_digest": self.digest,
            "images": self.images,
            "look": self.look,
            "size": self.size,
            "level": self.level,
            "alarm": self.alarm,
            "severity": self.severity,
            "reason": self.reason,
            "findings": [{**asdict(finding), "alarm": finding.alarm} for finding in self.findings],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DriftReport:
        """What ``to_dict`` gave."""
        findings = tuple(
            Finding(**{key: item for key, item in finding.items() if key != "alarm"})
            for finding in value["findings"]
        )
        return cls(
            value["task"], value["bundle_digest"], value["images"], value["look"], value["size"],
            value["level"], findings,
        )  # fmt: skip
