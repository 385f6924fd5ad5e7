"""What the commands of :mod:`training.registry.cli` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from .client import Registry
    from .gate import GateDecision
    from .version import Version


def open_registry() -> Registry:
    """The project's registry."""
    from .client import Registry

    return Registry()


def dataset(path: Path | None) -> Any:
    """The canonical dataset in a folder, or None."""
    if path is None:
        return None
    from data.dataset import Dataset

    return Dataset.open(path)


def rules(version: Version, task_file: Path | None) -> Any:
    """The rules that a version was judged by, or those of its task."""
    from training.task import load_task

    from .gate import GateRules
    from .ledger import Ledger
    from .state import last_gate

    if task_file is None:
        entry = last_gate(Ledger().entries(), version.task, version.digest)
        if entry is not None:
            return GateRules.from_dict(entry.data["rules"])
    return GateRules.of(load_task(task_file or version.task).gate)


def print_judged(version: Version, decision: GateDecision, as_json: bool) -> None:
    """A version and what the gate said of it."""
    if as_json:
        print_json({"version": version.to_dict(), "gate": decision.to_dict()})
        return
    from .view import print_decision, versions_table

    console = Console()
    console.print(versions_table([version]))
    print_decision(console, decision)


def print_promotion(done: Any, as_json: bool) -> None:
    """What was done, in a line."""
    if as_json:
        print_json(done.to_dict())
    elif not done.changed:
        typer.echo(f"{done.task} version {done.version} serves already.")
    else:
        before = f", before it version {done.before}" if done.before else ""
        typer.echo(f"{done.task} version {done.version} serves now ({', '.join(done.targets)}){before}.")


def words(text: str | None) -> tuple[str, ...] | None:
    """A list with commas between."""
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else None


def triple(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Three numbers with commas between."""
    if text is None:
        return None
    from data.errors import UsageError

    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} is {text!r}.", hint="Give three numbers: .485,.456,.406") from None
    return red, green, blue


def print_json(value: Any) -> None:
    """For machines."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
