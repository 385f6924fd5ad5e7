"""What a step says while it runs: that it began, how it ended, and the real error.

kfp tells only which task failed. A step therefore prints one marked line of JSON for each event; the local
runner reads them out of the stream, and on a cluster they are plain log lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from data.errors import RetidermError

MARK = "@retiderm "
PARENT = "RETIDERM_PARENT_PID"


class Reporter:
    """Collects what the step wants shown when it is done."""

    def __init__(self) -> None:
        self.said = ""

    def __call__(self, text: str) -> None:
        """Show ``text`` beside the step's name when it ends."""
        self.said = text


@contextlib.contextmanager
def step(name: str) -> Iterator[Reporter]:
    """Run the body as the step ``name``; any error is told in full before it goes on.

    >>> with step("ingest") as say:
    ...     say("12 images")
    @retiderm {"event": "started", "step": "ingest"}
    @retiderm {"event": "finished", "said": "12 images", "step": "ingest"}
    """
    _die_with_parent()
    _emit(event="started", step=name)
    say = Reporter()
    try:
        with _warnings_only():
            yield say
    except BaseException as error:
        _emit(event="failed", step=name, error=describe(error))
        raise
    _emit(event="finished", step=name, said=say.said)


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """kfp has every library tell its INFO messages: thousands, which would bury the step's own lines."""
    handlers = [(handler, handler.level) for handler in logging.getLogger().handlers]
    for handler, level in handlers:
        handler.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        for handler, level in handlers:
            handler.setLevel(level)


def describe(error: BaseException) -> dict[str, Any]:
    """An error as JSON: type, stable code, message, hint, and the rows of a failed check."""
    if isinstance(error, RetidermError):
        return {
            "type": type(error).__name__,
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "rows": [str(row) for row in getattr(error, "rows", ())],
        }
    text = str(error) or "no message"
    return {
        "type": type(error).__name__,
        "code": "interrupted" if isinstance(error, KeyboardInterrupt) else "unexpected",
        "message": f"{type(error).__name__}: {text}",
        "hint": None,
        "rows": [],
    }


def parse(line: str) -> dict[str, Any] | None:
    """The event in a line of a step's output, or None for any other line."""
    text = line.strip()
    if not text.startswith(MARK):
        return None
    try:
        event = json.loads(text[len(MARK) :])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _emit(**event: Any) -> None:
    # A leading newline: a library may have left its line unfinished.
    with contextlib.suppress(BrokenPipeError):
        print("\n" + MARK + json.dumps(event, sort_keys=True), flush=True)


def _die_with_parent() -> None:
    """Leave at once when the runner that started this process is gone (killed), on its machine only.

    Otherwise an orphan would go on training into the folder that the next run resumes from.
    """
    parent = os.environ.get(PARENT)
    if not parent:
        return
    import psutil

    try:
        runner = psutil.Process(int(parent))
    except psutil.NoSuchProcess:
        os._exit(143)

    def watch() -> None:
        while runner.is_running() and runner.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
        os._exit(143)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
