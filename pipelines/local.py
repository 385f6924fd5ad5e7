"""Runs the pipeline on this machine, by kfp's own local runner, and gathers what came of it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.steps import PARENT, describe
from data.errors import CheckFailed, RetidermError, StepFailed
from data.paths import home
from pipelines.recorder import CacheHits, Recorder, StepRecord, outputs
from pipelines.request import Request
from pipelines.view import RunView

_INNER = re.compile(r"Inner task failed: \S*?'([\w-]+)'")


@dataclass(slots=True)
class RunRecord:
    """What happened: the steps and what each of them put out, for :func:`pipelines.result.result`."""

    request: Request
    run_id: str
    folder: Path
    started_at: datetime
    source_digest: str
    seconds: float = 0.0
    steps: dict[str, StepRecord] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def log(self) -> Path:
        """All that the steps printed."""
        return self.folder / "log.txt"

    @property
    def failed(self) -> StepRecord | None:
        """The step that failed, if one did."""
        return next((step for step in self.steps.values() if step.status == "failed"), None)


def new_run_id(task: str, now: datetime) -> str:
    """``20260131T120000Z-dr_grading-1f3a``: sorts by time, unique enough for one machine."""
    return f"{now:%Y%m%dT%H%M%SZ}-{task}-{secrets.token_hex(2)}"


def run(request: Request, view: RunView) -> RunRecord:
    """Run the task's pipeline here. Failures are in the record, not raised."""
    from pipelines.fingerprint import source_digest

    now = datetime.now(UTC)
    run_id = new_run_id(request.task.name, now)
    folder = home().runs / run_id
    folder.mkdir(parents=True)
    record = RunRecord(request, run_id, folder, now, source_digest(request.source))
    arguments = request.arguments(record.source_digest)
    cache = home().runs / ".cache"
    started = time.monotonic()
    with record.log.open("w", encoding="utf-8") as log, _environment():
        recorder = Recorder(log, view)
        try:
            with _interruptible():
                execute(
                    request.shape.build(),
                    arguments,
                    recorder,
                    folder / "artifacts",
                    cache=cache if request.cache else None,
                )
        except KeyboardInterrupt:
            record.interrupted = True
            if recorder.running is not None:
                recorder.lost(recorder.running.name, "Interrupted.", code="interrupted")
        record.steps = recorder.records
    record.outputs = outputs(folder / "artifacts", cache, record.steps)
    record.seconds = round(time.monotonic() - started, 3)
    return record


def not_begun(request: Request, error: RetidermError) -> RunRecord:
    """The record of a run that failed before its first step could start: its source is none."""
    now = datetime.now(UTC)
    run_id = new_run_id(request.task.name, now)
    folder = home().runs / run_id
    folder.mkdir(parents=True)
    record = RunRecord(request, run_id, folder, now, "")
    record.log.write_text(f"{error}\n", encoding="utf-8")
    record.steps["ingest"] = StepRecord("ingest", "failed", error=describe(error))
    return record


def error_of(record: RunRecord) -> RetidermError | None:
    """The error of the step that failed, with its step's name, as it was raised in there."""
    step = record.failed
    if step is None:
        return None
    told = step.error or {}
    hint = told.get("hint") or f"The whole output is in {record.log}"
    message = str(told.get("message") or "It failed without a message.")
    if told.get("rows"):
        return CheckFailed(f"step {step.name}: {message}", rows=told["rows"], hint=hint)
    return StepFailed(message, step=step.name, hint=hint)


def execute(
    pipeline: Any, arguments: Mapping[str, Any], recorder: Recorder, folder: Path, *, cache: Path | None
) -> None:
    """Run any pipeline under kfp's local runner; what its steps do and say goes to ``recorder``.

    ``folder`` gets the artifacts, ``cache`` holds finished steps (None: none is taken or kept). A step that
    fails is recorded, not raised.
    """
    from kfp import local
    from kfp.local import config

    hits = CacheHits(recorder)
    root = logging.getLogger()
    level = root.level
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder),
        enable_caching=cache is not None,
        cache_root=str(cache or folder / ".cache"),
    )
    root.addHandler(hits)
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(recorder), warnings.catch_warnings():
            # kfp doubts that our image holds a Python, and says what it ignores on a laptop.
            warnings.simplefilter("ignore")
            pipeline(**arguments)
    except RuntimeError as error:
        found = _INNER.search(str(error))
        if found is None:
            raise
        recorder.lost(found[1])
    finally:
        root.removeHandler(hits)
        root.setLevel(level)
        # Pipelines called later in this process (a compile) must not run here.
        config.LocalExecutionConfig.instance = None


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What the steps' processes inherit: where home is, whose children they are, unbuffered output."""
    wanted = {
        "RETIDERM_HOME": str(home().root),
        PARENT: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
        # Library chatter that would drown the steps' own lines.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End the steps' processes on SIGINT and SIGTERM, then raise KeyboardInterrupt here."""
    import psutil

    def stop(number: int, frame: object) -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals go elsewhere
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
