"""``retiderm run``: the whole line on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from data.errors import SourceError, StepFailed, UsageError

app = typer.Typer()


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="A task's name (`retiderm tasks list`) or a task file.")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="The images: KIND:PATH, for example aptos:/data/aptos2019. "
            "`retiderm data sources` lists the kinds.",
        ),
    ],
    json_out: Annotated[
        Path | None,
        typer.Option("--json", help="Write the result here too (schema: docs/result.schema.json)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random; the task's own when not given.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="fold:K/N for one of N fixed folds, or stratified:SEED.", show_default="the source's"
        ),
    ] = "",
    backbone: Annotated[str | None, typer.Option(help="Any timm backbone, for example resnet50.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the task, for example train.epochs=3. Repeatable."
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="The task's profile for these images.", show_default="the source's")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take finished steps from earlier runs.")
    ] = True,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote/--no-promote", help="Let an accepted version serve; else it is only registered."
        ),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the outcome.")] = False,
) -> None:
    """Train, check, register and promote a model from a source of images.

    A classifier in ten steps: ingest, validate, train, evaluate, calibrate, export, register, gate, promote,
    deploy. A task of kind anomaly has features and coreset in place of train. What is finished is kept: the
    same command again, after a kill too, goes on where it was.

    Exits 0 when the gate accepts and when it refuses (a refusal is a result), 1 when a step fails.
    """
    from pipelines.local import error_of, not_begun
    from pipelines.local import run as run_pipeline
    from pipelines.outcome import show
    from pipelines.request import Request, overrides_of, resolve
    from pipelines.result import write
    from pipelines.shape import shape_of
    from pipelines.view import RunView
    from training.task import load_task

    if json_out is not None and json_out.is_dir():
        raise UsageError(f"{json_out} is a folder.", hint="Name a file for --json.")
    unseen: SourceError | None = None
    try:
        resolved, overrides = resolve(
            task, data, profile=profile, backbone=backbone, settings=settings or [], split=split
        )
    except SourceError as error:
        unseen = error
        overrides = overrides_of(backbone, settings or [])
        resolved = load_task(task, profile=profile, overrides=overrides)
    request = Request(
        task=resolved,
        source=data,
        seed=shape_of(resolved).seed(resolved) if seed is None else seed,
        split=split,
        overrides=overrides,
        cache=cache,
        promote=promote,
    )
    if unseen is not None:
        write(not_begun(request, unseen), json_out)
        raise StepFailed(unseen.message, step="ingest", hint=unseen.hint) from unseen
    with RunView(steps=len(shape_of(resolved).steps), quiet=quiet) as view:
        view.header(f"{resolved.name} from {data}")
        record = run_pipeline(request, view)
        outcome: dict[str, Any] = write(record, json_out)
    if record.interrupted:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130)
    failure = error_of(record)
    if failure is not None:
        raise failure
    show(outcome)
