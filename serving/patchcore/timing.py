"""How long each step of a request took: one log line a request, and the histogram on ``/metrics``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving.metrics import STEPS

_LOG = logging.getLogger("retiderm.patchcore")
_MODEL = "patchcore"


class Stopwatch:
    """Adds up seconds by step. For one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = self._marked = time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; the same step again is added."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def mark(self, name: str) -> None:
        """Say what the time since the start, or since the last mark, was."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._marked
        self._marked = now

    def log(self, what: str, role: str, roi: str, device: str, **counts: object) -> None:
        """One line: what was done, where, how much, and how long the steps took. Never an image or a path."""
        for name, seconds in self.seconds.items():
            STEPS.labels(_MODEL, name).observe(seconds)
        steps = " ".join(f"{name}_ms={1000 * seconds:.1f}" for name, seconds in self.seconds.items())
        numbers = " ".join(f"{name}={value}" for name, value in counts.items())
        total = 1000 * (time.perf_counter() - self._started)
        _LOG.info(
            "%s role=%s roi=%s device=%s %s %s total_ms=%.1f", what, role, roi, device, numbers, steps, total
        )
