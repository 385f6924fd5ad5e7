"""What the gateway costs beside its models, and what 64 clients at once get.

Run: ``python -m benchmarks.gateway [--seconds 120] [--clients 64] [--no-load] [--out FILE.csv]``.

The load goes through gateway, transformer and predictor with a ResNet-50 of random weights, once on
SQLite and once on PostgreSQL, clients and servers on the same machine. Exits with 1 where a case was lost or
doubled, an answer was a 5xx other than 503, or the gateway's own time is above 5 ms.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gateway.cost import measure_cost
from benchmarks.gateway.load import measure_load
from benchmarks.gateway.running import gateway, postgresql
from benchmarks.serving.bundle import TASK, bundle_folder
from benchmarks.serving.servers import served
from data.files import atomic_path
from data.provenance import hardware, versions
from data.synthetic.drawing import draw, plan

OUT = Path(__file__).parent.parent / "results" / "gateway.csv"
_COLUMNS = (
    "database", "step", "clients", "answers", "per_second", "p50_ms", "p99_ms", "status_503", "status_5xx",
    "median_ms", "limit_ms", "lost", "doubled", "without_bytes", "changed_answers", "met",
)  # fmt: skip


def main() -> int:
    """Measure, print, write, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each load")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--no-load", action="store_true", help="the cost only")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows = [{"database": "sqlite", **row} for row in measure_cost(given.rounds)]
    _print(rows)
    if not given.no_load:
        photographs = [draw(drawing) for drawing in plan("fundus", 200, size=512)]
        with served(bundle_folder()) as models, tempfile.TemporaryDirectory() as folder:
            with gateway(Path(folder) / "sqlite", models.url, TASK) as running:
                rows += _loaded("sqlite", running, photographs, given)
            with (
                postgresql(Path(folder)) as database,
                gateway(Path(folder) / "postgresql-images", models.url, TASK, database) as running,
            ):
                rows += _loaded("postgresql", running, photographs, given)
    _write(given.out, rows)
    failed = [row for row in rows if row.get("met") is False or row.get("status_5xx")]
    return 1 if failed else 0


def _loaded(
    database: str, running: Any, photographs: list[bytes], given: argparse.Namespace
) -> list[dict[str, Any]]:
    rows = measure_load(running, photographs, clients=given.clients, seconds=given.seconds)
    found = [{"database": database, **row} for row in rows]
    _print(found)
    return found


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        shown = "  ".join(f"{key} {value}" for key, value in row.items() if key not in ("database", "step"))
        print(f"{row['database']:11} {row['step']:34} {shown}", flush=True)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    machine = {
        **hardware(),
        **versions("fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg2-binary", "httpx"),
    }
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*_COLUMNS, *machine], lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
