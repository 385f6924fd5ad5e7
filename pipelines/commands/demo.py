"""``retiderm demo``: two tasks on made-up images, from drawing to an explained answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import typer

app = typer.Typer()


@app.command()
def demo() -> None:
    """Draw images, train both tasks' models on them, promote, serve, and ask each about two images.

    Everything is synthetic and small (pipelines/demo.yaml states every change to the tasks): it shows that
    the line works, and says nothing about patients. Under five minutes on two cores; a second run takes what
    is finished from the cache. Writes demo/summary.json and the explained images under RETIDERM_HOME.
    """
    from data.paths import home
    from pipelines.demo import ask_all, demo_tasks, require_no_real_champion, run_task, summary, surprises

    since = time.monotonic()
    out = home().root / "demo"
    out.mkdir(parents=True, exist_ok=True)
    tasks = demo_tasks()
    require_no_real_champion(tasks)
    outcomes = {}
    for task in tasks:
        outcomes[task.name] = run_task(task)
        print(file=sys.stderr)
    print("serving both models, asking each about a sharp and a blurred image", file=sys.stderr)
    answers = ask_all(outcomes, out)
    value = summary(outcomes, answers, time.monotonic() - since, out)
    _show(value, surprises(value))
    print(f"\nsummary and pictures: {out}")
    print("next: make serve (or retiderm serve), then")
    print(f"      retiderm predict {out}/dr_grading-sharp.jpg --task dr_grading --explain why.png")
    print("      retiderm models list, retiderm models history dr_grading")
    print(f"      MLflow's page: mlflow ui --backend-store-uri sqlite:///{home().mlflow}/mlflow.db")


def _show(value: Mapping[str, Any], notes: list[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]demo[/bold]: synthetic images; nothing here is about patients\n")
    models = Table("task", "version", "gate", "test AUC (95 %)", box=box.SIMPLE_HEAD, pad_edge=False)
    asked = Table("asked", "image", "verdict", "answer", "truth", "ms", box=box.SIMPLE_HEAD, pad_edge=False)
    for task, item in value["tasks"].items():
        figures = next(iter((item["metrics"] or {}).values()), None)
        auc = figures["auc"] if figures else None
        shown = f"{auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})" if auc else "–"
        models.add_row(task, str(item["version"]), item["gate"]["decision"], shown)
        for row in item["answers"]:
            quality = row["answer"].get("quality", {"verdict": "error", "reasons": []})
            reasons = f" ({', '.join(quality['reasons'])})" if quality["reasons"] else ""
            told = [_answer(head) for head in row["answer"].get("heads", {}).values()]
            version = row["answer"].get("model", {}).get("version", "?")
            asked.add_row(
                f"{task} {version}",
                row["image"],
                quality["verdict"] + reasons,
                "; ".join(told) or "none",
                ", ".join(row["truth"].values()),
                f"{row['latency_ms']:.0f}",
            )
    console.print(models)
    if asked.row_count:
        console.print(asked)
        console.print(
            "A blurred image gets no answer, on purpose. ms: median over V2 REST, overlay included."
        )
    for note in notes:
        console.print(f"[yellow]note[/yellow] {note}")
    console.print(f"took {value['seconds']:.0f} s")


def _answer(head: Mapping[str, Any]) -> str:
    doubt = ", uncertain" if head["uncertain"] else ""
    return f"{head['label']} {head['confidence']:.2f}{doubt}"
