"""Locks between processes, on files: gone with the process that held them, however it ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from data.errors import RegistryError

_POLL_S = 0.05


@contextlib.contextmanager
def locked(path: Path, what: str, timeout: float = 30.0) -> Iterator[None]:
    """Hold the lock on ``path``; wait for it at most ``timeout`` seconds.

    The file stays when the lock goes: removing it would let two processes hold "the" lock at once.

    Raises:
        RegistryError: another process or thread held it all that time; names its process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                    waited = f" for over {timeout:g} s" if timeout else ""
                    raise RegistryError(
                        f"{what} is under way in another process ({holder}){waited}.",
                        hint="Wait for it, or end it; its lock goes with it.",
                    ) from None
                time.sleep(_POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
