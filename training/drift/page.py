"""A window beside its reference as Evidently's page, under our own judgement.

Evidently draws the distributions. Whether there is an alarm is ours to say, since its own tests know neither
the other measures nor the other looks: it is given our judgement as its test. The page is one file and loads
nothing: a content security policy in it forbids every address, so that it reads the same without a network.
"""

from __future__ import annotations

import html
import os
import re
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.files import write_text
from serving.core.drift import DriftReport, Reference, Window
from serving.core.drift.features import TONES, tones
from serving.core.drift.measures import Measure

if TYPE_CHECKING:
    import pandas as pd

#: What the page may load: nothing but what it holds itself. Its charts compile nothing, and need inline code.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)

# A column with fewer values than this says nothing, and Evidently's tests refuse it.
_LEAST = 5

# Evidently knows tests by name and passes them values alone, so that the page being made is kept here.
_TEST = "retiderm"
_JUDGED: dict[str, tuple[float, bool]] = {}
_ONE_AT_A_TIME = threading.Lock()

_STYLE = """
#retiderm{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1.5rem;color:#1b1f24}
#retiderm h1{font-size:1.5rem;margin:0 0 .25rem}
#retiderm p{margin:.25rem 0}
#retiderm table{border-collapse:collapse;width:100%;margin-top:1rem}
#retiderm th,#retiderm td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #ccc}
#retiderm td{vertical-align:top}
#retiderm td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
#retiderm .ok{color:#1a6b34}#retiderm .waiting{color:#57606a}#retiderm .warning{color:#8a5200;font-weight:600}
#retiderm .critical{color:#a40e26;font-weight:700}
"""


def write_page(path: Path, report: DriftReport, reference: Reference, window: Window) -> None:
    """Write the page of a judged window to ``path``, whole or not at all.

    Raises:
        DataError: nothing that the window holds can be compared.
    """
    before, now = frames(reference, window)
    told = [name for name in before if _measure_of(str(name)) in _verdicts(report)]
    before, now = before[told], now[told]
    write_text(path, page(report, _evidently(report, before, now)))


def frames(reference: Reference, window: Window) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The reference's and the window's values, a column each; text columns are classes.

    Raises:
        DataError: no column has values on both sides.
    """
    import pandas as pd

    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for measure in reference.measures:
        values = measure.of(window)
        if values is None or min(len(values), len(measure.values)) < _LEAST:
            continue
        for side, given in zip(sides, (measure.values, values), strict=True):
            side.update(_columns(measure, given, reference))
    if not sides[0]:
        raise DataError(
            "The window holds nothing that the bundle's reference can be compared with.",
            hint="Collect more images, or export the bundle again.",
        )
    # Columns of one side may differ in length: refused images have no answer.
    one, other = (pd.DataFrame({name: pd.Series(v) for name, v in side.items()}) for side in sides)
    return one, other


def _columns(measure: Measure, values: NDArray[Any], reference: Reference) -> dict[str, NDArray[Any]]:
    name = _name(measure.name, measure.head)
    if measure.name == "embedding":
        return {}  # so many directions are no picture; `unusual` says how far an image lies
    if measure.name == "colour":
        return dict(zip(TONES, tones(values).T, strict=True))
    if measure.name == "class_mix":
        classes = next(head.classes for head in reference.heads if head.name == measure.head)
        return {f"{measure.head}: answer": np.array(classes)[values.argmax(axis=1)]}
    if measure.name in ("refused", "uncertain"):
        return {name: np.where(values[:, 0] > 0.5, "yes", "no")}
    return {name: values[:, 0]}


def _verdicts(report: DriftReport) -> dict[str, tuple[float, bool]]:
    """By measure's name: how many thresholds it is off, and whether it alarms."""
    return {
        _name(finding.measure, finding.head): (finding.statistic / finding.threshold, finding.alarm)
        for finding in report.findings
        if finding.statistic is not None and finding.threshold
    }


def _ours(known: pd.Series[Any], given: pd.Series[Any], kind: Any, threshold: float) -> tuple[float, bool]:
    return _JUDGED[_measure_of(str(given.name))]


def _name(measure: str, head: str | None) -> str:
    return f"{head}: {measure}" if head else measure


def _measure_of(column: str) -> str:
    if column in TONES:
        return "colour"
    head, separator, answer = column.rpartition(": ")
    return f"{head}: class_mix" if separator and answer == "answer" else column


def _evidently(report: DriftReport, before: pd.DataFrame, now: pd.DataFrame) -> str:
    # Before the import: the library then reports nothing to anyone.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # It still imports a module of NumPy's by its old name.
        warnings.simplefilter("ignore", DeprecationWarning)
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.metrics import ValueDrift

    numbers = [name for name in before if before[name].dtype.kind == "f"]
    words = [name for name in before if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=words)
    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    test = StatTest(_TEST, "retiderm's own, in thresholds", kinds, default_threshold=1.0)
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        register_stattest(test, _ours)
        _JUDGED.clear()
        _JUDGED.update(_verdicts(report))
        run = Report([ValueDrift(column=name, method=_TEST) for name in before]).run(
            Dataset.from_pandas(now, data_definition=definition),
            Dataset.from_pandas(before, data_definition=definition),
        )
        return str(run.get_html_str(as_iframe=False))


def page(report: DriftReport, charts: str) -> str:
    """Evidently's document with our policy in its head and our judgement before its charts."""
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        f"<title>Drift: {html.escape(report.task)}</title><style>{_STYLE}</style>"
    )
    for tag, added in (("head", head), ("body", judgement(report))):
        start = re.search(rf"<{tag}(\s[^>]*)?>", charts)
        if start is None:
            raise DataError(
                f"Evidently's page has no <{tag}>, so nothing can be put into it.",
                hint="Install the Evidently that requirements.lock names.",
            )
        charts = charts[: start.end()] + added + charts[start.end() :]
    return charts


def judgement(report: DriftReport) -> str:
    """Our own part: what was found, a row a measure, the gravest first."""
    rows = "".join(
        f"<tr><td>{html.escape(finding.head or '')} {html.escape(finding.measure.replace('_', ' '))}</td>"
        f'<td class="{finding.severity}">{finding.severity}</td>'
        f'<td class="n">{_times(finding.statistic, finding.threshold)}</td>'
        f"<td>{html.escape(finding.reason)}</td></tr>"
        for finding in (*report.alarms, *(one for one in report.findings if not one.alarm))
    )
    return (
        f'<main id="retiderm"><h1>Drift of {html.escape(report.task)}: '
        f'<span class="{report.severity}">{report.severity}</span></h1>'
        f"<p>{html.escape(report.reason)}</p>"
        f"<p>{report.images} of {report.size} images have come; judged after {report.look}. A window without "
        f"a shift alarms at most once in {round(1 / report.level):,}. Model {html.escape(report.digest)}.</p>"
        "<table><thead><tr><th>measure</th><th>verdict</th><th>of its threshold</th><th>why</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        "<p>Below, each measure by Evidently: the reference's held-out images and the window's.</p></main>"
    )


def _times(statistic: float | None, threshold: float | None) -> str:
    return "" if statistic is None or not threshold else f"{statistic / threshold:.2f}"
