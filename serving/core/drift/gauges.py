"""A report as Prometheus gauges, in the default registry; needs ``prometheus_client``."""

from __future__ import annotations

import time

from prometheus_client import Gauge

from serving.core.drift.report import SEVERITIES, DriftReport

_MEASURE = ["model", "version", "family", "measure", "head"]

DISTANCE = Gauge(
    "retiderm_drift_distance", "How far a measure has moved, in thresholds: from 1 on it alarms", _MEASURE
)
EFFECT = Gauge("retiderm_drift_effect", "The share of images that look otherwise, 0 to 1", _MEASURE)
ALARM = Gauge("retiderm_drift_alarm", "0 no alarm, 1 warning, 2 critical", _MEASURE)
SEVERITY = Gauge(
    "retiderm_drift_severity",
    "The window's gravest: 0 ok, 1 waiting, 2 warning, 3 critical",
    ["model", "version"],
)
IMAGES = Gauge("retiderm_drift_images", "Images in the window that was judged last", ["model", "version"])
JUDGED = Gauge(
    "retiderm_drift_judged_timestamp_seconds", "When a window was judged last", ["model", "version"]
)


def publish(report: DriftReport, *, version: str = "", at: float | None = None) -> None:
    """Set the gauges of the report's model, and drop what earlier reports on it said and this one doesn't.

    ``version`` is the registry's; ``at`` seconds since 1970, now when not given. Only one version of a model
    is shown: a promotion must not leave the older one's alarms standing.
    """
    model = (report.task, version)
    values: dict[Gauge, dict[tuple[str, ...], float]] = {
        SEVERITY: {model: SEVERITIES.index(report.severity)},
        IMAGES: {model: report.images},
        JUDGED: {model: time.time() if at is None else at},
        DISTANCE: {},
        EFFECT: {},
        ALARM: {},
    }
    for finding in report.findings:
        if finding.statistic is not None and finding.threshold:
            place: tuple[str, ...] = (*model, finding.family, finding.measure, finding.head or "")
            values[DISTANCE][place] = finding.statistic / finding.threshold
            values[EFFECT][place] = finding.effect or 0.0
            values[ALARM][place] = {"warning": 1, "critical": 2}.get(finding.severity, 0)
    for gauge, rows in values.items():
        for labels, value in rows.items():
            gauge.labels(*labels).set(value)
        # Last, so that no scrape finds a gap.
        for metric in list(gauge.collect()):
            for sample in metric.samples:
                there = tuple(sample.labels.values())
                if sample.labels["model"] == report.task and there not in rows:
                    gauge.remove(*there)
