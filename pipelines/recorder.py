"""Reads a local run's output as kfp prints it: what each step did, said, and why it failed."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from components.steps import parse
from pipelines.view import RunView

_CACHE_HIT = re.compile(r"Task (\S+) cache hit \(key=([0-9a-f]+)\)")
_EXECUTING = re.compile(r"Executing task \S*?'([\w-]+)'")
_PREFIX = re.compile(r"^\[KFP Executor [^\]]*\]: ?")
_INDENT = "    "  # kfp sets it before each line of a step's process, and not before its own
_KEPT_LINES = 40


@dataclass(slots=True)
class StepRecord:
    """What became of one step."""

    name: str
    status: str  # "running", "done", "cached", "failed"
    seconds: float = 0.0
    said: str = ""
    error: dict[str, Any] | None = None
    cache_key: str = ""
    lines: list[str] = field(default_factory=list)


class Recorder(io.TextIOBase):
    """Standard output while kfp runs: every line to the log, events and steps' own lines to the view."""

    def __init__(self, log: TextIO, view: RunView) -> None:
        self.records: dict[str, StepRecord] = {}
        self._log, self._view = log, view
        self._buffer = ""
        self._current: StepRecord | None = None
        self._since = time.monotonic()
        self._outside: list[str] = []  # what processes printed before their step began

    def write(self, text: str) -> int:
        """Take what kfp prints, in whatever pieces."""
        self._buffer += text
        while "\n" in self._buffer:
            line, self._buffer = self._buffer.split("\n", 1)
            self._line(line)
        return len(text)

    def writable(self) -> bool:
        """Yes."""
        return True

    def flush(self) -> None:
        """Pass it on to the log."""
        self._log.flush()

    def cache_hit(self, step: str, key: str) -> None:
        """kfp found a step's result in its cache."""
        self.records[step] = StepRecord(step, "cached", cache_key=key)
        self._log.write(f"{step}: cached ({key})\n")
        self._view.cached(step, "")

    @property
    def running(self) -> StepRecord | None:
        """The step that began and hasn't ended."""
        return self._current

    def _elapsed(self) -> float:
        """Seconds since kfp began the task: the process's start counts, too."""
        return round(time.monotonic() - self._since, 3)

    def _line(self, line: str) -> None:
        self._log.write(line + "\n")
        event = parse(line)
        if event is not None:
            self._log.flush()
            self._event(event)
        elif not line.startswith(_INDENT):
            if _EXECUTING.search(line):
                self._since = time.monotonic()
        elif text := _PREFIX.sub("", line.strip()):
            kept = self._outside if self._current is None else self._current.lines
            kept.append(text)
            del kept[:-_KEPT_LINES]
            if self._current is not None:
                self._view.line(text)

    def _event(self, event: dict[str, Any]) -> None:
        name, kind = str(event["step"]), event["event"]
        if kind == "started":
            self._current = self.records[name] = StepRecord(name, "running")
            self._view.started(name)
            return
        record = self.records.setdefault(name, StepRecord(name, "running"))
        record.seconds = self._elapsed()
        self._current = None
        if kind == "finished":
            record.status, record.said = "done", str(event.get("said", ""))
            self._view.finished(name, record.seconds, record.said)
        else:
            record.status, record.error = "failed", event["error"]
            self._view.failed(name, record.seconds)

    def lost(self, step: str, what: str | None = None, code: str = "lost") -> None:
        """A step's process ended without a word: killed, or broken before it could speak."""
        record = self._current or self.records.get(step) or StepRecord(step, "running")
        self.records[record.name] = record
        if record.status == "failed":
            return
        record.seconds = self._elapsed()
        self._current = None
        record.status = "failed"
        if what is None:
            last = [line for line in (record.lines or self._outside) if line.strip()][-3:]
            what = "Its process ended without a word: killed, perhaps for want of memory."
            if last:
                what += f" Its last lines: {' | '.join(last)}"
        record.error = {"type": "ProcessLost", "code": code, "message": what, "hint": None, "rows": []}
        self._view.failed(record.name, record.seconds)


class CacheHits(logging.Handler):
    """kfp reports a cache hit only by a message to the root logger."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.INFO)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        """Notice cache hits, ignore the rest."""
        if found := _CACHE_HIT.search(record.getMessage()):
            self._recorder.cache_hit(found[1], found[2])


def outputs(folder: Path, cache: Path, records: dict[str, StepRecord]) -> dict[str, dict[str, Any]]:
    """Each step's outputs by name, artifacts as paths, from what it wrote or from kfp's cache entry.

    Unlike the pipeline's own outputs these are there for a run that failed half-way, too.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, record in records.items():
        if record.status == "cached":
            found[name] = dict(_from_cache(cache, record.cache_key))
        elif record.status == "done":
            found[name] = dict(_from_executor(folder, name))
    return found


def _from_executor(folder: Path, step: str) -> Iterator[tuple[str, Any]]:
    from data.files import read_json

    for path in folder.glob(f"**/{step}/executor_output.json"):
        content = read_json(path)
        yield from content.get("parameterValues", {}).items()
        for name, value in content.get("artifacts", {}).items():
            yield name, Path(value["artifacts"][0]["uri"])


def _from_cache(cache: Path, key: str) -> Iterator[tuple[str, Any]]:
    from data.files import read_json

    for path in cache.glob(f"{key}*.json"):
        for name, value in read_json(path).items():
            yield name, Path(value["uri"]) if isinstance(value, dict) and "uri" in value else value
