"""``retiderm models approve``, ``promote`` and ``rollback``: what serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.registry.commands.parts import (
    Data,
    Json,
    Ref,
    Task,
    Who,
    Why,
    dataset,
    open_registry,
    print_json,
    print_promotion,
    read_comparison,
    rules,
)


def approve(
    task: Task, version: Ref = "challenger", why: Why = "", who: Who = None, as_json: Json = False
) -> None:
    """Approve a version, where the task requires that a person does. Then promote it.

    Example: retiderm models approve dr_grading 3 --why "read 40 cases with Dr. B"
    """
    from training.registry.gate import approve as give

    registry = open_registry()
    found = give(registry, registry.get(task, version), why=why, who=who)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(f"{task} version {found.version} is approved by {found.approved_by}.")


def promote(
    task: Task,
    version: Ref = "challenger",
    why: Why = "",
    who: Who = None,
    judge: Annotated[bool, typer.Option("--judge", help="Ask the gate again first.")] = False,
    task_file: Annotated[
        Path | None,
        typer.Option("--task-file", help="Whose gate to judge by, where it is not the package's."),
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option(
            "--comparison", help="JSON of what was seen of it beside the champion, for the history."
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let a version serve that the gate accepted. All of it happens, or nothing.

    \b
    Examples:
      retiderm models promote dr_grading            (the challenger)
      retiderm models promote dr_grading 3 --judge  (the champion has changed since it was judged)
    """
    from training.registry.promotion import promote as carry_out

    registry = open_registry()
    found = registry.get(task, version)
    if judge:
        from training.registry.gate import judge as ask

        decision = ask(registry, found, rules(found, task_file), dataset=dataset(data))
        if not as_json:
            from training.registry.view import print_decision

            print_decision(Console(), decision)
    seen = read_comparison(comparison)
    print_promotion(carry_out(registry, found, why=why, who=who, comparison=seen), as_json, seen)


def rollback(
    task: Task,
    to: Annotated[
        str | None, typer.Option("--to", help="A version that has served; the previous one when not given.")
    ] = None,
    why: Why = "",
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Go back to what served before. A second rollback comes forward again.

    Example: retiderm models rollback dr_grading --why "too many retakes"
    """
    from training.registry.promotion import rollback as carry_out

    print_promotion(carry_out(open_registry(), task, to=to, why=why, who=who), as_json)
