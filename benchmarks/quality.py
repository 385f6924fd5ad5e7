"""What the models are worth on real sets: one ``retiderm run`` a seed or fold, figures from its own JSON.

Run::

    python -m benchmarks.quality --retinamnist medmnist:/data/retinamnist.npz --idrid idrid:/data/idrid_640 \
        --ham10000 ham10000:/data/ham10000_200x150

Each set that is given is measured; a finished run is not repeated (``--fresh`` forgets them). Rows go to
``benchmarks/results/quality.csv``, one a run and one mean a set, with the targets beside the means.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data.files import atomic_path, read_json
from data.paths import home
from data.provenance import code_digest, hardware, versions

OUT = Path(__file__).parent / "results" / "quality.csv"
FIGURES = ("auc", "accuracy", "balanced_accuracy", "kappa", "nll", "ece")
PACKAGES = ("torch", "timm", "onnxruntime", "retiderm")


@dataclass(frozen=True, slots=True)
class Study:
    """One set: the task, how it is repeated, and what its mean must reach."""

    name: str
    task: str
    targets: Mapping[str, float]
    seeds: tuple[int, ...] = (0,)
    folds: int = 0
    minutes: float | None = None

    def runs(self) -> list[tuple[str, list[str]]]:
        """A label and the options of each run."""
        if self.folds:
            return [(f"fold {k}", ["--split", f"fold:{k}/{self.folds}"]) for k in range(self.folds)]
        return [(f"seed {seed}", ["--seed", str(seed)]) for seed in self.seeds]


STUDIES = (
    Study("retinamnist", "dr_grading", {"auc": 0.76, "accuracy": 0.55}, seeds=(0, 1, 2, 3, 4), minutes=15),
    Study("idrid", "dr_grading", {"kappa": 0.70}, folds=5),
    Study("ham10000", "skin_lesion", {"auc": 0.93, "balanced_accuracy": 0.65}, minutes=40),
)


def measure(study: Study, source: str, *, fresh: bool) -> list[dict[str, Any]]:
    """Run the line for every seed or fold of a study and give a row each."""
    root = home().root / "bench" / "quality" / study.name
    if fresh:
        shutil.rmtree(root, ignore_errors=True)
    rows = []
    for label, options in study.runs():
        out = root / f"{label.replace(' ', '-')}.json"
        if not out.is_file() or read_json(out)["status"] not in ("completed", "refused"):
            out.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "pipelines.cli", "run", study.task, "--data", source]
            command += ["--json", str(out), "--no-promote", *options]
            subprocess.run(command, check=True, env={**os.environ, "RETIDERM_HOME": str(root / "home")})
        rows.append(row(study, label, read_json(out)))
    return rows


def row(study: Study, label: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one run's JSON; a task's first head is its main one."""
    head = next(iter(result["metrics"]))
    metrics, calibration = result["metrics"][head], result["calibration"][head]
    figures = {name: metrics[name]["value"] for name in FIGURES if name in metrics}
    coverage = calibration["coverage"]
    return {
        "set": study.name,
        "task": study.task,
        "run": label,
        "test_images": metrics["n"],
        "minutes": result["seconds"] / 60,
        **figures,
        "nll_before": calibration["nll"]["before"],
        "ece_band_high": calibration["ece"]["band"][1],
        "ece_inside": calibration["ece"]["inside"],
        "coverage": coverage["observed"],
        "coverage_band": " to ".join(f"{edge:.3f}" for edge in coverage["band"]),
        "coverage_inside": coverage["inside"],
        "set_size": coverage["set_size"],
        "gate": (result["gate"] or {}).get("decision"),
        "test_digest": result["test_digest"],
        # A cached run's seconds are not a training's: the table says so.
        "cached": sum(bool(step["cached"]) for step in result["steps"]),
    }


def mean(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over a study's runs, and whether it reaches the study's targets."""
    averaged = {
        name: statistics.fmean(row[name] for row in rows)
        for name in ("minutes", *FIGURES, "nll_before", "coverage", "set_size")
        if all(isinstance(row.get(name), int | float) for row in rows)
    }
    reached = {name: averaged[name] >= least for name, least in study.targets.items()}
    if study.minutes is not None:
        averaged["minutes"] = max(row["minutes"] for row in rows)
        reached["minutes"] = averaged["minutes"] <= study.minutes
    told = [f"{name} >= {least:g}" for name, least in study.targets.items()]
    told += [f"minutes <= {study.minutes:g}"] if study.minutes is not None else []
    return {
        "set": study.name,
        "task": study.task,
        "run": f"mean of {len(rows)}",
        **averaged,
        "ece_inside": sum(bool(row["ece_inside"]) for row in rows),
        "coverage_inside": sum(bool(row["coverage_inside"]) for row in rows),
        "target": "; ".join(told),
        "reached": all(reached.values()),
    }


def merge(rows: list[dict[str, Any]], out: Path, measured: set[str]) -> list[dict[str, Any]]:
    """The rows with those of sets that were not measured this time, each naming its own machine and code."""
    machine = " ".join(f"{key}={value}" for key, value in {**hardware(), **versions(*PACKAGES)}.items())
    code = code_digest("data", "training", "serving/core")[:19]
    named = [{**row, "machine": machine, "code": code} for row in rows]
    if out.is_file():
        with out.open(newline="") as stream:
            named = [row for row in csv.DictReader(stream) if row["set"] not in measured] + named
    return named


def write(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the CSV: every column that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(out) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for item in rows:
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in item.items()})


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows."""
    shown = ("set", "run", "minutes", "auc", "accuracy", "balanced_accuracy", "kappa", "nll_before", "nll")
    shown += ("ece", "ece_inside", "coverage", "coverage_inside", "reached")
    table = Table(*shown)
    for item in rows:
        values = (item.get(name, "") for name in shown)
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values))
    Console(width=200).print(table)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for study in STUDIES:
        parser.add_argument(f"--{study.name}", metavar="KIND:PATH", help=f"the source for {study.task}")
    parser.add_argument("--fresh", action="store_true", help="repeat finished runs")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    chosen = [(study, source) for study in STUDIES if (source := getattr(given, study.name))]
    if not chosen:
        parser.error("Name at least one set, for example --retinamnist medmnist:/data/retinamnist.npz.")
    rows: list[dict[str, Any]] = []
    for study, source in chosen:
        found = measure(study, source, fresh=given.fresh)
        rows += [*found, mean(study, found)]
    show(rows)
    write(merge(rows, given.out, {study.name for study, _ in chosen}), given.out)
    print(f"Written to {given.out}")
    return 0 if all(row.get("reached", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
