"""What ``retiderm tune`` measured on this kind of host, and which runtime a predictor therefore uses.

::

    <home>/tuned/<bundle digest>/<host kind>.json

A choice holds for one bundle, one kind of host (processor, its instructions, CPU quota) and the version
of the runtime that was measured; for anything else there is none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import BundleError
from data.files import write_json
from data.paths import home
from data.provenance import hardware
from serving.core.bundle.codec import from_plain, to_plain

FORMAT = 1

#: What is usual is kept unless another takes less than this part of its time: more than the clock's noise.
WORTH = 0.95

_LOG = logging.getLogger("retiderm.serving")


@dataclass(frozen=True, slots=True)
class Measured:
    """One runtime with one precision. ``passed`` False: it isn't a candidate, and ``reason`` says why.

    Times are of one image, logits alone. ``max_difference`` is that from the golden answers, in probability.
    """

    runtime: str
    precision: str
    version: str = ""
    bytes: int = 0
    median_ms: float | None = None
    p95_ms: float | None = None
    max_difference: float | None = None
    tolerance: float | None = None
    labels_changed: int | None = None
    passed: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """A choice with the whole table that it rests on. ``version`` is ``Runtime.name`` of the chosen one."""

    task: str
    digest: str
    host: str
    hardware: Mapping[str, Any]
    threads: int
    tuned_at: str
    runtime: str
    precision: str
    version: str
    table: tuple[Measured, ...]
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values: what the model's metadata shows."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def host_kind() -> str:
    """This kind of host as a file's name: processor, its instructions (a short digest), CPU quota.

    >>> host_kind() == host_kind()
    True
    """
    machine = hardware()
    name = re.sub(r"[^a-z0-9]+", "-", str(machine["cpu"]).lower()).strip("-") or "cpu"
    return f"{name}-{_instructions()}-{machine['cores']}cpu"


def tuned_path(digest: str) -> Path:
    """Where the choice for a bundle on this kind of host is kept."""
    return home().root / "tuned" / digest.removeprefix("sha256:") / f"{host_kind()}.json"


def write_tuned(tuned: Tuned) -> Path:
    """Keep a choice, replacing an older one; its path."""
    path = tuned_path(tuned.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, tuned.to_dict())
    return path


def read_tuned(digest: str) -> Tuned | None:
    """The choice for a bundle on this kind of host. What can't be read is logged and counts as none."""
    path = tuned_path(digest)
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _LOG.warning("%s ignored: %s", path, error)
        return None
    try:
        found = from_plain(Tuned, value, "tuned")
    except BundleError as error:
        _LOG.warning("%s ignored: %s Run retiderm tune again.", path, error.message)
        return None
    if (found.format, found.digest, found.host) != (FORMAT, digest, host_kind()):
        _LOG.warning("%s ignored: it is another bundle's or host's. Run retiderm tune again.", path)
        return None
    return found


def tuned_table(digest: str) -> dict[str, Any] | None:
    """The measured table for a bundle on this kind of host, for its metadata; None when not tuned."""
    found = read_tuned(digest)
    return None if found is None else found.to_dict()


def _instructions() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "any"
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    flags = " ".join(sorted(line.partition(":")[2].split()))
    return hashlib.sha256(flags.encode()).hexdigest()[:8]
