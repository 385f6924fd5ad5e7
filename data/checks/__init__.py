"""Is a dataset fit to learn from? Great Expectations checks it; the answer is a report and a gate.

>>> report = check(dataset)          # doctest: +SKIP
>>> report.write_report(Path("report"))  # doctest: +SKIP
>>> require(report)                  # doctest: +SKIP
"""

from data.checks.report import CheckReport, Finding, require
from data.checks.run import check

__all__ = ["CheckReport", "Finding", "check", "require"]
