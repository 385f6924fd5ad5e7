"""The rows of the result."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.files import atomic_path
from data.provenance import hardware, versions


@dataclass
class Table:
    """The rows of the result."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: str, **values: Any) -> None:
        """Add and print a row."""
        self.rows.append({"step": step, **values})
        shown = "  ".join(f"{key} {value}" for key, value in values.items() if value != "")
        print(f"{step:58} {shown}", flush=True)

    def write(self, path: Path) -> None:
        """Write the table with the machine and the versions beside each row."""
        names = ("onnxruntime", "kserve", "opencv-python-headless", "grpcio", "numpy")
        # Beside other work, only real-time priority gives the time that a machine of its own would.
        priority = "normal" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time"
        machine = {**hardware(), "scheduling": priority, **versions(*names)}
        keys = ["step", "median_ms", "p95_ms", "beyond_bare_ms", "value", "unit", "requests", "ok",
                "refused_503", "errors", "health_worst_ms", "rounds"]  # fmt: skip
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*keys, *machine], lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows({**row, **machine} for row in self.rows)
