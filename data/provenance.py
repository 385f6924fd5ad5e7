"""Which code and which machine made a result: what caches, cards, runs and benchmark tables name."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parent.parent
_SUFFIXES = {".py", ".yaml", ".json"}


@functools.lru_cache(maxsize=16)
def code_digest(*packages: str) -> str:
    """``sha256:<hex>`` over the source files of top-level packages or folders of them.

    A pipeline's cache can't see library code, so steps take this as an input.

    >>> code_digest("data").startswith("sha256:")
    True
    """
    digest = hashlib.sha256()
    for package in sorted(packages):
        base = _ROOT / package.replace(".", "/")
        for path in sorted(
            p for p in base.rglob("*") if p.suffix in _SUFFIXES and "__pycache__" not in p.parts
        ):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return "sha256:" + digest.hexdigest()


def versions(*names: str) -> dict[str, str]:
    """The installed versions of packages; an absent one is left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_quota() -> int:
    """CPUs that this process may use, the container's quota included; at least 1."""
    cpus = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cpus = min(cpus, max(1, round(int(limit) / int(period))))
    return max(1, cpus)


def hardware() -> dict[str, str | int]:
    """The machine, as benchmark tables name it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": model,
        "cores": cpu_quota(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "os": platform.system(),
    }
