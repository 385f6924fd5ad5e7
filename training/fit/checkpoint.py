"""What a killed run needs to go on, and the lock that keeps two runs out of one folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from data.errors import UsageError
from data.files import atomic_path

FORMAT = 1
NAME = "checkpoint.pt"
#: Names the MLflow run, so that a run that goes on reports to the same place.
TRACKING = "tracking.json"


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all. Tensors and plain values only, so that loading runs no code."""
    with atomic_path(folder / NAME) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load(folder: Path) -> dict[str, Any] | None:
    """The checkpoint, or None when there is none.

    Raises :class:`UsageError` when it can't be read: it is never passed over in silence.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail in many ways
        raise UsageError(
            f"{path} can't be read: {str(error).splitlines()[0]}", hint="Begin anew with --fresh."
        ) from error
    if state.get("format") != FORMAT:
        raise UsageError(
            f"{path} is of format {state.get('format')!r}, not {FORMAT}.", hint="Begin anew with --fresh."
        )
    return state


def remove(folder: Path) -> None:
    """Remove what only an unfinished training needs; the MLflow run's name goes when all is reported."""
    (folder / NAME).unlink(missing_ok=True)
    for path in folder.glob("best-*.safetensors"):
        path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone. The system lets go when the process ends, however it ends.

    What a killed process was writing is removed: half a file, under a temporary name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise UsageError(
                f"Another process (pid {holder}) trains in {folder}.",
                hint="Wait for it, or use another folder.",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        for path in folder.glob(".*.part"):
            path.unlink(missing_ok=True)
        yield
