"""``retiderm models list``, ``show`` and ``history``: what there is, and what served when."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from training.registry.commands.parts import Json, Ref, Task, open_registry, print_json


def list_(
    task: Annotated[str | None, typer.Argument(help="Only this task.")] = None, as_json: Json = False
) -> None:
    """List every version of every task, newest first.

    Example: retiderm models list dr_grading --json
    """
    registry = open_registry()
    tasks = [task] if task else registry.tasks()
    versions = [version for name in tasks for version in registry.versions(name)]
    if as_json:
        print_json([version.to_dict() for version in versions])
        return
    if not versions:
        typer.echo("The registry has no version yet. Train one: retiderm run dr_grading --data SOURCE.")
        return
    from training.registry.view import versions_table

    Console().print(versions_table(versions))
    from training.registry.challenge import challenging
    from training.registry.ledger import Ledger

    for beside in challenging(Ledger(), task):
        typer.echo(
            f"{beside.task} version {beside.version} answers {beside.words} since {beside.since[:16]}."
        )


def show(task: Task, version: Ref = "champion", as_json: Json = False) -> None:
    """Show a version's page: metrics with intervals, data, licence, intended use, the gate's report.

    Example: retiderm models show skin_lesion 2
    """
    registry = open_registry()
    found = registry.get(task, version)
    bundle = registry.bundle(found)
    if as_json:
        where = str(bundle.root)
        print_json({**found.to_dict(), "bundle": where, "card": bundle.card.to_dict()})
        return
    from training.registry.view import print_page

    print_page(Console(), found, registry.page(found))


def history(
    task: Annotated[str | None, typer.Argument(help="Only this task.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every entry of the ledger, not only what served.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What served when, who decided it and why; from the ledger.

    Example: retiderm models history dr_grading
    """
    from training.registry.ledger import Ledger
    from training.registry.state import history as rows_of

    entries = Ledger().entries()
    if all_:
        chosen = [entry for entry in entries if task is None or entry.task == task]
        if as_json:
            print_json([entry.to_dict() for entry in chosen])
        else:
            for entry in chosen:
                typer.echo(
                    f"{entry.seq:5} {entry.time[:19]} {entry.event:9} {entry.task} {entry.version} "
                    f"{entry.data.get('step', '')} {entry.who} {entry.why}".rstrip()
                )
        return
    rows = rows_of(entries, task)
    if as_json:
        print_json([row.to_dict() for row in rows])
    elif not rows:
        typer.echo("Nothing has served yet.")
    else:
        from training.registry.view import history_table

        Console().print(history_table(rows))
