"""What Prometheus sees of us on ``/metrics``, beside what KServe counts, one registry a process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

# From what one resize takes to what a queue may hold: the default buckets begin at 5 ms, where we are done.
BUCKETS = (
    0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.011, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

VERDICTS = Counter(
    "retiderm_verdicts", "Images by quality verdict; errors by their code", ["model", "verdict"]
)
CLASSES = Counter("retiderm_predictions", "Answers by predicted class", ["model", "version", "head", "label"])
UNCERTAIN = Counter("retiderm_uncertain", "Answers below the uncertainty threshold", ["model", "head"])
REQUESTS = Counter("retiderm_requests", "Requests by way in and outcome", ["model", "wire", "outcome"])
STEPS = Histogram("retiderm_step_seconds", "Time a step took", ["model", "step"], buckets=BUCKETS)
IN_FLIGHT = Gauge("retiderm_in_flight", "Requests that wait or are worked on", ["queue"])
SWAPS = Counter("retiderm_swaps", "Versions that were loaded to serve, or refused", ["model", "outcome"])
MODEL = Gauge("retiderm_model", "1 for the version that serves", ["model", "version", "digest", "precision"])


@contextmanager
def step(model: str, name: str) -> Iterator[None]:
    """Time a step of a request."""
    started = time.perf_counter()
    try:
        yield
    finally:
        STEPS.labels(model, name).observe(time.perf_counter() - started)


def swapped(model: str, outcome: str) -> None:
    """Count a version that was loaded or refused."""
    SWAPS.labels(model, outcome).inc()


def serves(model: str, version: str, digest: str, precision: str) -> None:
    """Say which version of a model serves now."""
    gone(model)
    MODEL.labels(model, version, digest, precision).set(1)


def gone(model: str) -> None:
    """Say that no version of a model serves any more."""
    for metric in list(MODEL.collect()):
        for sample in metric.samples:
            if sample.labels["model"] == model:
                labels = sample.labels
                MODEL.remove(model, labels["version"], labels["digest"], labels["precision"])
