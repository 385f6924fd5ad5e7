"""The folder a training works in: the same one for the same training, so that a killed one goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from data.errors import UsageError
from data.files import atomic_dir, digest_json
from data.paths import home

_WAIT_S = 20.0
_LEFT_BEHIND = {"checkpoint.pt", "tracking.json", ".lock"}


def training_key(*, task: str, dataset: str, seed: int, code: str) -> str:
    """What makes two trainings the same training."""
    return digest_json({"task": task, "dataset": dataset, "seed": seed, "code": code})[7:31]


@contextlib.contextmanager
def work_folder(key: str, *, wait_s: float = _WAIT_S) -> Iterator[Path]:
    """The folder ``work/<key>`` under the home's runs, held alone while the body runs.

    It is left in place, so that a later run resumes from its checkpoint; :func:`publish` empties it.

    Raises:
        UsageError: another process trains exactly this at the moment.
    """
    root = home().runs / "work"
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{key}.lock").open("w") as lock:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise UsageError(
                        "Another run is training exactly this now.",
                        hint="Wait for it (its result is then taken from the cache), or give another --seed.",
                    ) from None
                time.sleep(0.2)
        folder = root / key
        folder.mkdir(exist_ok=True)
        yield folder


def publish(work: Path, out: Path) -> None:
    """Give the finished files of a work folder their place, whole or not at all, then empty the folder."""
    with atomic_dir(out) as temporary:
        for item in sorted(work.rglob("*")):
            # A part is what a killed process was writing: nobody's finished file.
            if not item.is_file() or item.name in _LEFT_BEHIND or item.suffix == ".part":
                continue
            target = temporary / item.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(item, target)
            except OSError:
                shutil.copy2(item, target)
    shutil.rmtree(work)
