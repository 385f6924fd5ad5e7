"""``retiderm loop``: labels from review become the next dataset, and that the next candidate."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import RetidermError, UsageError
from pipelines.cluster import HOME_CLAIM
from pipelines.commands.loop_parts import (
    Account,
    Anyway,
    Backbone,
    Base,
    Claim,
    Correct,
    Drift,
    Environment,
    Experiment,
    Extend,
    Forbids,
    Host,
    Json,
    Labels,
    Leave,
    Licence,
    Namespace,
    Needed,
    Profile,
    Promote,
    Seed,
    Settings,
    Task,
    Warm,
    WhenDue,
    made_of,
    request_of,
    words,
)
from pipelines.commands.loop_watch import watch

if TYPE_CHECKING:
    from training.loop.collect import Wishes
    from training.loop.due import Trigger

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command()(watch)


@app.command()
def retrain(
    task: Task,
    labels: Labels,
    base: Base = "",
    correct: Correct = False,
    extend_test: Extend = False,
    leave_conflicts: Leave = False,
    licence: Licence = "",
    forbids: Forbids = "",
    warm_start: Warm = False,
    when_due: WhenDue = False,
    anyway: Anyway = False,
    needed: Needed = None,
    drift: Drift = "",
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the result here too (docs/result.schema.json).")
    ] = None,
    seed: Seed = None,
    backbone: Backbone = None,
    settings: Settings = None,
    profile: Profile = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take finished steps from earlier runs.")
    ] = True,
    promote: Promote = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the outcome.")] = False,
) -> None:
    """Train the next candidate on labels from review; the gate judges it against the champion.

    What passes becomes challenger. A person lets it serve: retiderm models promote. What is finished is kept:
    the same command again, after a kill too, goes on where it was.

    \b
    Examples:
      retiderm loop retrain dr_grading --labels https://gateway.example.org
      retiderm loop retrain dr_grading --labels ./export --base var/datasets/eyes --correct
      retiderm loop retrain dr_grading --labels https://gateway.example.org --when-due   (in a crontab)

    Without a label or an erasure that changes the dataset nothing is trained: --anyway does it all the same.

    Exits 0 when the gate accepts, when it refuses, and when it isn't time yet or nothing is new; 1 when a
    step fails, or another retraining of the task runs here.
    """
    from pipelines.local import error_of
    from pipelines.local import run as run_pipeline
    from pipelines.outcome import show
    from pipelines.result import write
    from pipelines.view import RunView
    from training.loop.collect import Wishes
    from training.loop.due import Trigger
    from training.loop.places import LOCK, open_base, place
    from training.registry.locks import locked
    from training.task import load_task

    if json_out is not None and json_out.is_dir():
        raise UsageError(f"{json_out} is a folder.", hint="Name a file for --json.")
    name = load_task(task).name
    with contextlib.ExitStack() as held:
        # Of two at once the second would train on the same labels, and its version take the first's place.
        held.enter_context(locked(place(name, LOCK), f"A retraining of {name}", timeout=0))
        found = open_base(name, base)
        if "://" not in labels:
            labels = str(Path(labels).expanduser().resolve())
        trigger = Trigger(not when_due, needed, drift, _anyway(anyway, when_due))
        wishes = Wishes(correct, extend_test, leave_conflicts, licence, words(forbids))
        request = request_of(
            task,
            str(found.root),
            labels=labels,
            wishes=wishes,
            trigger=Trigger(anyway=True),  # it is asked below
            warm=warm_start,
            seed=seed,
            backbone=backbone,
            settings=settings or [],
            profile=profile,
            cache=cache,
            promote=promote,
            see=f"dataset:{found.root}",
        )
        if not anyway and not _due(name, task, labels, str(found.root), wishes, trigger):
            return
        view = held.enter_context(RunView(steps=len(request.shape.steps), quiet=quiet))
        view.header(f"{name} from {labels} on {found.info['images']} images ({found.digest[:19]})")
        record = run_pipeline(request, view)
        outcome: dict[str, Any] = write(record, json_out)
    if record.interrupted:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130)
    failure = error_of(record)
    if failure is not None:
        raise failure
    report = record.outputs["labels"]["report"] / "report.json"
    _show_report(json.loads(report.read_text(encoding="utf-8")))
    show(outcome)


@app.command()
def labels(
    task: Task,
    labels: Labels,
    base: Base = "",
    correct: Correct = False,
    extend_test: Extend = False,
    leave_conflicts: Leave = False,
    out: Annotated[
        Path | None, typer.Option(help="Write report.json and report.md into this folder too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check labels and say what they would come to: what is new, what is left, how readers agree.

    Nothing is trained, and no dataset is made.

    Example: retiderm loop labels dr_grading --labels ./export --base var/datasets/eyes
    """
    from training.loop.collect import Wishes, collect
    from training.loop.report import write_report
    from training.task import load_task

    spec = load_task(task)
    found = collect(spec.name, spec.heads, labels, base, Wishes(correct, extend_test, leave_conflicts))
    if out is not None:
        write_report(found.report, out)
    if as_json:
        typer.echo(json.dumps(found.report, indent=2, ensure_ascii=False))
        return
    _show_report(found.report)
    typer.echo(f"source: {found.source}")


@app.command()
def status(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks or task files.", show_default="every registered one")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Count what waits there: the gateway's address, a folder or a zip.")
    ] = None,
    base: Base = "",
    needed: Needed = None,
    drift: Drift = "",
    as_json: Json = False,
) -> None:
    """Say of each task what its loop waits for.

    Labels are counted where --labels says, without their pictures.

    Example: retiderm loop status dr_grading --labels https://gateway.example.org --drift drift/report.json
    """
    from training.loop.due import Trigger
    from training.loop.status import standing
    from training.registry.client import Registry
    from training.task import load_task, task_names

    registry = Registry()
    chosen = tasks or [name for name in registry.tasks() if name in task_names()]
    if len(chosen) > 1 and (base or drift):
        raise UsageError("--base and --drift are of one task.", hint="Name the task.")
    trigger = Trigger(False, needed, drift)
    specs = [load_task(name) for name in chosen]
    found = [
        standing(registry, spec.name, spec.heads, labels=labels, base=base, trigger=trigger) for spec in specs
    ]
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found], indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo("The registry has no version yet. Train one: retiderm run dr_grading --data SOURCE.")
    for each in found:
        for line in _standing_lines(each.to_dict()):
            typer.echo(line)


@app.command("compile")
def compile_(
    task: Task,
    out: Annotated[Path, typer.Option(help="The folder for the YAML file.")] = Path("build/pipelines"),
    profile: Profile = None,
    settings: Settings = None,
    environment: Environment = None,
    home_claim: Claim = HOME_CLAIM,
) -> None:
    """Write the pipelines `retrain` and `drift` of a task as YAML that Kubeflow Pipelines takes.

    All but `export` (where labels come from) and `windows` (where answers do) has a default inside.
    """
    from components.base import IMAGE
    from pipelines.cluster import Place, write_yaml
    from pipelines.commands.cluster import pairs
    from pipelines.drift import Look
    from training.task import load_task, parse_settings

    spec = load_task(task, profile=profile, overrides=parse_settings(settings or []))
    request = made_of(spec, actor="kubeflow")
    place = Place(pairs(environment or []), home_claim)
    for each, left_open in ((request, "export"), (Look(spec, ""), "windows")):
        defaults = each.arguments("")
        del defaults[left_open]
        path = write_yaml(
            spec,
            out / f"{each.shape.name}-{spec.name}.yaml",
            place,
            fresh=True,
            parameters=defaults,
            shape=each.shape,
        )
        typer.echo(str(path))
    typer.echo(f"image: {IMAGE}", err=True)


@app.command()
def submit(
    task: Task,
    labels: Labels,
    host: Host,
    home_claim: Claim,
    cron: Annotated[
        str | None,
        typer.Option(help="Start it again and again: '0 0 3 * * 1' is Mondays at 3 (seconds first)."),
    ] = None,
    base: Base = "",
    correct: Correct = False,
    extend_test: Extend = False,
    leave_conflicts: Leave = False,
    licence: Licence = "",
    forbids: Forbids = "",
    warm_start: Warm = False,
    when_due: WhenDue = False,
    anyway: Anyway = False,
    needed: Needed = None,
    drift: Drift = "",
    seed: Seed = None,
    backbone: Backbone = None,
    settings: Settings = None,
    profile: Profile = None,
    environment: Environment = None,
    namespace: Namespace = None,
    experiment: Experiment = "retiderm",
    service_account: Account = None,
    promote: Promote = False,
) -> None:
    """Send the pipeline `retrain` to Kubeflow, once or on a schedule.

    Paths (--labels, --base, --drift) are as the cluster sees them: under the volume that RETIDERM_HOME is.
    The token for Kubeflow is read from RETIDERM_KFP_TOKEN; that for the gateway is a secret of the step
    `labels` in the task file. With --cron and --when-due it looks each time, and trains when it is time.

    Example: retiderm loop submit dr_grading --labels http://gateway --host URL --home-claim retiderm-home
    --cron '0 0 3 * * *' --when-due
    """
    from pipelines.cluster import Place
    from pipelines.commands.cluster import pairs
    from pipelines.submit import Cluster
    from pipelines.submit import submit as send
    from training.loop.collect import Wishes
    from training.loop.due import Trigger

    if extend_test and cron:
        raise UsageError(
            "A schedule can't extend the test part: a person does, once.",
            hint="Leave --cron or --extend-test out.",
        )
    request = request_of(
        task,
        base,
        labels=labels,
        wishes=Wishes(correct, extend_test, leave_conflicts, licence, words(forbids)),
        trigger=Trigger(not when_due, needed, drift, _anyway(anyway, when_due)),
        warm=warm_start,
        seed=seed,
        backbone=backbone,
        settings=settings or [],
        profile=profile,
        promote=promote,
    )
    made = send(
        request,
        Cluster(host.rstrip("/"), namespace, experiment, service_account),
        cron=cron,
        place=Place(pairs(environment or []), home_claim),
    )
    typer.echo(f"{made.kind} {made.id}\n{made.link}")


def _due(name: str, task: str, labels: str, base: str, wishes: Wishes, trigger: Trigger) -> bool:
    """Whether it is time; says so, or what is waited for."""
    from training.loop.status import due_now
    from training.registry.client import Registry
    from training.task import load_task

    heads = load_task(task).heads
    try:
        due = due_now(Registry(), name, heads, labels=labels, base=base, wishes=wishes, trigger=trigger)
    except RetidermError as error:
        if trigger.always:
            return True  # the first step says what is wrong, and the run's result with it
        raise UsageError(error.message, hint=error.hint) from error
    if not (trigger.always and due.due):
        typer.echo(f"{name}: {due.sentence}", err=True)
    if trigger.always and not due.due:
        typer.echo("hint: --anyway trains all the same, for instance with other settings", err=True)
    return due.due


def _anyway(anyway: bool, when_due: bool) -> bool:
    if anyway and when_due:
        raise UsageError("--anyway asks for no labels, --when-due for enough.", hint="Leave one of them out.")
    return anyway


def _show_report(report: dict[str, Any]) -> None:
    from training.loop.report import lines

    for line in lines(report):
        typer.echo(line.lstrip("# ") if line.startswith("#") else line)
    typer.echo("")


def _standing_lines(told: dict[str, Any]) -> list[str]:
    def version(which: str) -> str:
        found = told[which]
        return (
            f"version {found['version']}, {found['created_at'][:16].replace('T', ' ')}" if found else "none"
        )

    base, due, drift = told["base"], told["due"], told["drift"]
    lines = [
        told["task"],
        f"  champion    {version('champion')}",
        f"  challenger  {version('challenger')}",
        f"  retrained   {version('retrained')}",
        f"  dataset     {base['images']} images, {base['digest'][:19]}"
        if base
        else "  dataset     none here",
    ]
    if due:
        lines.append(f"  labels      {due['gathered']} new, {due['needed']} needed")
    if drift:
        stale = " (of another version than the champion)" if drift["stale"] else ""
        lines.append(f"  drift       {drift['severity']}{stale}: {drift['reason']}")
    return lines + [f"  waits for   {each}" for each in told["waits_for"]]
