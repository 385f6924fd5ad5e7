"""``retiderm models verify`` and ``reconcile``: whether all is as the ledger says, and how it comes to be."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from training.registry.commands.parts import Json, Why, open_registry, print_json


def verify(
    task: Annotated[
        str | None, typer.Argument(help="Only this task's state; the ledger is checked whole.")
    ] = None,
    bundles: Annotated[bool, typer.Option(help="Read every version's files as well.")] = True,
    as_json: Json = False,
) -> None:
    """Check that the history is whole, that nothing is half done, and that what serves is what was promoted.

    Exits 1 when anything is wrong; changes nothing. Example: retiderm models verify
    """
    from training.registry.verify import verify as look

    findings = look(open_registry(), task, bundles=bundles)
    if as_json:
        print_json({"ok": not findings, "findings": [item.to_dict() for item in findings]})
    elif findings:
        from training.registry.view import print_findings

        print_findings(Console(), findings)
    else:
        typer.echo("All is well: ledger, aliases, what serves" + (", every bundle." if bundles else "."))
    raise typer.Exit(1 if findings else 0)


def reconcile(
    task: Annotated[str | None, typer.Argument(help="Only this task.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    new_ledger: Annotated[
        bool,
        typer.Option("--new-ledger", help="Set a damaged ledger aside and begin a new one. Needs --why."),
    ] = False,
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Finish or undo what a crash left half done, and put back what was changed by hand.

    Exits 1 when something could not be put right. Example: retiderm models reconcile --dry-run
    """
    from training.registry.adoption import begin_anew
    from training.registry.ledger import Ledger
    from training.registry.reconcile import Repair
    from training.registry.reconcile import reconcile as mend

    registry = open_registry()
    found: list[Repair] = []
    if new_ledger:
        aside, found = begin_anew(registry, Ledger(), task, why)
        if not as_json:
            typer.echo(f"The old ledger is in {aside.name}, beside the new one.")
    found += mend(registry, task, dry_run=dry_run)
    if as_json:
        print_json([item.to_dict() for item in found])
    elif not found:
        typer.echo("Nothing to do.")
    else:
        for item in found:
            mark = "to do" if dry_run else "done" if item.done else "NOT done"
            typer.echo(f"{mark}: {item.task}: {item.message}")
    if not dry_run and any(not item.done for item in found):
        raise typer.Exit(1)
