"""What a check found, for people, for machines, and for the pipeline that must stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.dataset import Dataset
from data.errors import CheckFailed

Severity = Literal["failure", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that the data breaks.

    ``check`` is a stable code; ``rows`` say which images and what is wrong with each, one line an image;
    ``images`` are ids of manifest rows to show, each with the other half of its pair where it has one.
    """

    check: str
    severity: Severity
    message: str
    count: int
    rows: tuple[str, ...] = ()
    images: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Everything that was checked. ``gx`` is Great Expectations' own result, as JSON values."""

    dataset: Dataset
    checked: tuple[str, ...]
    failures: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    gx: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing failed; warnings don't count."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without Great Expectations' own."""
        return {
            "passed": self.passed,
            "dataset_digest": self.dataset.digest,
            "checked": list(self.checked),
            "failures": [asdict(each) for each in self.failures],
            "warnings": [asdict(each) for each in self.warnings],
        }

    def write_report(self, folder: Path) -> Path:
        """Write ``report.html`` (needs no network), ``report.json``, ``gx.json``; gives the page's path."""
        from data.checks.page import write_report

        return write_report(self, folder)


def require(report: CheckReport) -> None:
    """Raise :class:`CheckFailed`, naming every failure and its rows, unless the report passed."""
    if report.passed:
        return
    rows = [f"{each.check}: {row}" for each in report.failures for row in each.rows]
    told = " ".join(
        f"{each.message}"
        + (f" ({'; '.join(each.rows[:5])}{'; …' if len(each.rows) > 5 else ''})" if each.rows else "")
        for each in report.failures
    )
    raise CheckFailed(
        f"The data check failed: {told}",
        rows=rows,
        hint="See the check's report.html, mend the source and ingest again.",
    )
