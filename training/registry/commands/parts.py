"""What the commands of :mod:`training.registry.cli` share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from training.registry.client import Registry
    from training.registry.gate import GateDecision
    from training.registry.version import Version


Task = Annotated[str, typer.Argument(help="The task, for example dr_grading.")]
Ref = Annotated[
    str,
    typer.Argument(help="A version: its number, an alias (champion, challenger, previous) or its digest."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
Who = Annotated[str | None, typer.Option("--who", help="Who decides; your user name when not given.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The canonical dataset, where stored test predictions are missing."),
]


def open_registry() -> Registry:
    """The project's registry."""
    from training.registry.client import Registry

    return Registry()


def dataset(path: Path | None) -> Any:
    """The canonical dataset in a folder, or None."""
    if path is None:
        return None
    from data.dataset import Dataset

    return Dataset.open(path)


def rules(version: Version, task_file: Path | None) -> Any:
    """The rules that a version was judged by, or those of its task."""
    from training.registry.gate import GateRules
    from training.registry.ledger import Ledger
    from training.registry.state import last_gate
    from training.task import load_task

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
    from training.registry.view import print_decision, versions_table

    console = Console()
    console.print(versions_table([version]))
    print_decision(console, decision)


def read_comparison(path: Path | None) -> dict[str, Any] | None:
    """What was seen of a version beside the champion, from a JSON file.

    Raises:
        UsageError: the file can't be read, or holds no object.
    """
    if path is None:
        return None
    from data.errors import UsageError
    from data.files import read_json

    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--comparison can't be read: {error}") from None
    if not isinstance(found, dict):
        raise UsageError("--comparison is a JSON object.", hint="The gateway's page of models exports one.")
    return found


def print_promotion(done: Any, as_json: bool, comparison: Mapping[str, Any] | None = None) -> None:
    """What was done, in a line; and how it did beside the champion, where that was seen."""
    if as_json:
        print_json(done.to_dict())
    elif not done.changed:
        typer.echo(f"{done.task} version {done.version} serves already.")
    else:
        before = f", before it version {done.before}" if done.before else ""
        typer.echo(f"{done.task} version {done.version} serves now ({', '.join(done.targets)}){before}.")
        if done.challenge:
            from training.registry.beside import describe

            how = describe(done.challenge["mode"], done.challenge["share"])
            typer.echo(f"It answered {how} since {done.challenge['since'][:16]}, and no longer does.")
        for name, value in (comparison or {}).items():
            typer.echo(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")


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
