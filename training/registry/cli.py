"""``retiderm models``: look at versions, decide which serves, and see that history is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data.errors import RegistryError, UsageError

from . import cli_challenge
from .cli_parts import (
    Json,
    Ref,
    Task,
    Who,
    Why,
    dataset,
    open_registry,
    print_json,
    print_judged,
    print_promotion,
    read_comparison,
    rules,
    triple,
    words,
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

Data = Annotated[
    Path | None,
    typer.Option("--data", help="The canonical dataset, where stored test predictions are missing."),
]


@app.callback()
def models() -> None:
    """Versions of models: list, compare, approve, promote, roll back, verify.

    \b
    What is there, and what serves:
      retiderm models list
      retiderm models show dr_grading champion
      retiderm models history dr_grading

    \b
    Change what serves:
      retiderm models promote dr_grading 3
      retiderm models rollback dr_grading --why "worse on the new camera"

    \b
    Look at a version beside what serves:
      retiderm models challenge dr_grading 4 --shadow
      retiderm models withdraw dr_grading

    \b
    After a crash, or when in doubt:
      retiderm models verify
      retiderm models reconcile
    """


@app.command("list")
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
    from .view import versions_table

    Console().print(versions_table(versions))
    from .challenge import challenging
    from .ledger import Ledger

    for beside in challenging(Ledger(), task):
        typer.echo(
            f"{beside.task} version {beside.version} answers {beside.words} since {beside.since[:16]}."
        )


@app.command()
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
    from .view import print_page

    print_page(Console(), found, registry.page(found))


@app.command()
def compare(
    task: Task,
    candidate: Ref = "challenger",
    champion: Annotated[str, typer.Argument(help="The version to compare with.")] = "champion",
    metric: Annotated[str, typer.Option(help="auc, accuracy, balanced_accuracy, kappa, nll or ece.")] = "auc",
    margin: Annotated[float, typer.Option(help="How much worse would be acceptable.")] = 0.01,
    by: Annotated[
        str | None, typer.Option("--by", help="Columns to compare slices by, such as ita_class.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compare two versions: their test metrics, and where they were judged on the same test images, a paired
    bootstrap of the difference.

    \b
    Examples:
      retiderm models compare dr_grading
      retiderm models compare dr_grading 4 2 --metric kappa
      retiderm models compare skin_lesion --by ita_class
    """
    from .gate import GateRules, against, groups

    registry = open_registry()
    one, other = registry.get(task, candidate), registry.get(task, champion)
    found: list[Any] | str = "They were judged on different test images, so no paired comparison is possible."
    slices: tuple[Any, ...] = ()
    if one.test_digest == other.test_digest:
        rules = GateRules(metric=metric, margin=margin, slice_by=words(by) or ())
        bundle, given = registry.bundle(one), dataset(data)
        found = against(registry, one, bundle, other, rules, given)
        slices = () if isinstance(found, str) else groups(registry, one, bundle, other, rules, given)
    pairs = [] if isinstance(found, str) else found
    if as_json:
        print_json(
            {
                "candidate": one.to_dict(),
                "champion": other.to_dict(),
                "comparisons": [item.to_dict() for item in pairs],
                "slices": [item.to_dict() for item in slices],
                "note": found if isinstance(found, str) else None,
            }
        )
        return
    from .view import compare_table, print_comparisons

    console = Console()
    console.print(compare_table(one, other))
    if isinstance(found, str):
        console.print(found, markup=False)
    print_comparisons(console, pairs)
    for check in slices:
        console.print(check.sentence, markup=False)


@app.command("import")
def import_(
    task: Annotated[str, typer.Option("--task", help="The task, or a task file.")],
    weights: Annotated[
        Path, typer.Option("--weights", help="ONNX, TorchScript, safetensors or a torch state dict.")
    ],
    data: Annotated[Path, typer.Option("--data", help="The canonical dataset to calibrate and judge it on.")],
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="The timm model of a state dict, e.g. resnet50.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="The order of its outputs, by class name; the task's when not given."),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="The licence of the weights.")] = "",
    forbids: Annotated[
        str, typer.Option("--forbids", help="Uses that the licence forbids, e.g. commercial.")
    ] = "",
    mean: Annotated[
        str | None, typer.Option("--mean", help="Normalisation of its input, 0 to 1 scale: r,g,b.")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", help="As --mean.")] = None,
    output: Annotated[str | None, typer.Option("--output", help="An ONNX file's output to take.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="The model gives probabilities, not logits.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code inside a TorchScript file. Only if you trust it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take in a model that was trained elsewhere, through the same proofs, evaluation and gate as our own.

    \b
    Examples:
      retiderm models import --task dr_grading --weights old.pth --architecture resnet50 --data DATASET
      retiderm models import --task skin_lesion --weights model.onnx --mean .485,.456,.406 \\
        --std .229,.224,.225 --classes mel,nv,bcc,akiec,bkl,df,vasc --data DATASET
    """
    from .importer import Foreign, import_model

    foreign = Foreign(
        weights=weights,
        architecture=architecture,
        classes=words(classes),
        licence=licence,
        forbids=words(forbids) or (),
        mean=triple(mean, "--mean"),
        std=triple(std, "--std"),
        output=output,
        probabilities=probabilities,
        trust=trust,
    )
    version, decision = import_model(open_registry(), task, foreign, data)
    print_judged(version, decision, as_json)
    if not as_json and decision.accepted:
        typer.echo(f"Let it serve: retiderm models promote {version.task} {version.version}")


@app.command()
def approve(
    task: Task, version: Ref = "challenger", why: Why = "", who: Who = None, as_json: Json = False
) -> None:
    """Approve a version, where the task requires that a person does. Then promote it.

    Example: retiderm models approve dr_grading 3 --why "read 40 cases with Dr. B"
    """
    from .gate import approve as give

    registry = open_registry()
    found = give(registry, registry.get(task, version), why=why, who=who)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(f"{task} version {found.version} is approved by {found.approved_by}.")


@app.command()
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
    from .promotion import promote as carry_out

    registry = open_registry()
    found = registry.get(task, version)
    if judge:
        from .gate import judge as ask

        decision = ask(registry, found, rules(found, task_file), dataset=dataset(data))
        if not as_json:
            from .view import print_decision

            print_decision(Console(), decision)
    seen = read_comparison(comparison)
    print_promotion(carry_out(registry, found, why=why, who=who, comparison=seen), as_json, seen)


app.command()(cli_challenge.challenge)
app.command()(cli_challenge.withdraw)


@app.command()
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
    from .promotion import rollback as carry_out

    print_promotion(carry_out(open_registry(), task, to=to, why=why, who=who), as_json)


@app.command()
def learned(
    sha256_file: Annotated[
        Path, typer.Option("--sha256-file", help="Images: the SHA-256 of each on a line of its own.")
    ],
    as_json: Json = False,
) -> None:
    """Say which versions had learned from these images, as the gateway asks after an erasure.

    Example: retiderm models learned --sha256-file erased.txt
    """
    from training.loop.learned import learned as ask

    try:
        images = sha256_file.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise UsageError(f"{sha256_file} can't be read as a list of SHA-256.") from error
    found = ask(open_registry(), images)
    if as_json:
        print_json(found.to_dict())
        return
    for one in found.versions:
        typer.echo(f"{one.model} version {one.version} learned from {len(one.images)} of them.")
    for one in found.unknown:
        typer.echo(f"{one.model} version {one.version}: its data ({one.dataset_digest[:19]}…) is not here.")
    if not found.versions and not found.unknown:
        typer.echo("No version had learned from any of them.")


@app.command()
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
    from .ledger import Ledger
    from .state import history as rows_of

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
        from .view import history_table

        Console().print(history_table(rows))


@app.command()
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
    from .verify import verify as look

    findings = look(open_registry(), task, bundles=bundles)
    if as_json:
        print_json({"ok": not findings, "findings": [item.to_dict() for item in findings]})
    elif findings:
        from .view import print_findings

        print_findings(Console(), findings)
    else:
        typer.echo("All is well: ledger, aliases, what serves" + (", every bundle." if bundles else "."))
    raise typer.Exit(1 if findings else 0)


@app.command()
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
    from .heads import tasks_of_old_keys
    from .ledger import Ledger
    from .reconcile import adopt
    from .reconcile import reconcile as mend

    registry, found = open_registry(), []
    if new_ledger:
        if not why:
            raise RegistryError("A ledger is not set aside without a reason.", hint="Add --why.")
        ledger = Ledger()
        # Before it is set aside, since the old key tells which heads in MLflow are this ledger's.
        heads = registry.ledger_heads()
        tasks = ledger.known()[0] | tasks_of_old_keys(registry, ledger)
        if task is not None and task in heads:
            tasks.add(task)
        if not tasks and heads and task is None:
            raise RegistryError(
                "Ledger and key are both lost, so nobody can say which of MLflow's tasks were this ledger's.",
                hint="Name them one after the other: retiderm models reconcile TASK --new-ledger --why …; "
                f"MLflow knows {', '.join(sorted(heads))}.",
            )
        aside = ledger.retire(why)
        found += adopt(registry, ledger, tasks, why=why)
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
