"""``retiderm compile`` and ``retiderm submit``: the same pipeline for Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data.errors import UsageError
from pipelines.cluster import HOME_CLAIM
from pipelines.commands.loop_parts import Account, Experiment, Host, Namespace

app = typer.Typer()

_Profile = Annotated[
    str | None, typer.Option(help="The task's profile for the images.", show_default="the source's")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the task, for example train.epochs=3. Repeatable."
    ),
]
_Environment = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        help="For every step, for example MLFLOW_TRACKING_URI=… (no secrets). Repeatable.",
    ),
]
_Claim = Annotated[
    str,
    typer.Option(
        metavar="CLAIM",
        help="The volume claim (ReadWriteMany) for RETIDERM_HOME: ledger, image store, unfinished trainings.",
    ),
]


@app.command("compile")
def compile_(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(help="Tasks or task files.", show_default="every task of the package"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the YAML files.")] = Path("build/pipelines"),
    profile: _Profile = None,
    settings: _Settings = None,
    environment: _Environment = None,
    home_claim: _Claim = HOME_CLAIM,
) -> None:
    """Write the pipelines as YAML that Kubeflow Pipelines takes, one file a task.

    Resources, GPU, secrets, timeouts and retries come from the task's `steps`. All but `source` has a default
    inside, so that the file can be started from Kubeflow's page. RETIDERM_IMAGE names the image.
    """
    from components.base import IMAGE
    from pipelines.cluster import Place, write_yaml
    from pipelines.fingerprint import code_digests
    from pipelines.request import task_arguments
    from pipelines.shape import shape_of
    from training.task import load_task, parse_settings, task_names

    for name in tasks or task_names():
        task = load_task(name, profile=profile, overrides=parse_settings(settings or []))
        shape = shape_of(task)
        defaults = {
            **task_arguments(task),
            "source_digest": "",
            "split": shape.split,
            "seed": shape.seed(task),
            "promotes": True,
            "actor": "kubeflow",
            **code_digests(task.kind),
        }
        path = write_yaml(
            task,
            out / f"{shape.name}-{task.name}.yaml",
            Place(pairs(environment or []), home_claim),
            fresh=True,
            parameters=defaults,
        )
        typer.echo(str(path))
    typer.echo(f"image: {IMAGE}", err=True)


@app.command()
def submit(
    task: Annotated[str, typer.Argument(help="A task's name or a task file.")],
    data: Annotated[str, typer.Option("--data", help="The images as the cluster sees them: KIND:PATH.")],
    host: Host,
    home_claim: _Claim,
    cron: Annotated[
        str | None,
        typer.Option(help="Start it again and again: '0 0 3 * * 1' is Mondays at 3 (seconds first)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random; the task's own when not given.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="fold:K/N or stratified:SEED.", show_default="the source's")
    ] = "",
    backbone: Annotated[str | None, typer.Option(help="Any timm backbone.")] = None,
    settings: _Settings = None,
    profile: _Profile = None,
    environment: _Environment = None,
    namespace: Namespace = None,
    experiment: Experiment = "retiderm",
    service_account: Account = None,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Let an accepted version serve.")
    ] = True,
) -> None:
    """Send the pipeline to Kubeflow, once or on a schedule.

    The token is read from RETIDERM_KFP_TOKEN (or KF_PIPELINES_TOKEN), never from the command line.
    """
    from pipelines.cluster import Place
    from pipelines.fingerprint import source_digest
    from pipelines.request import Request, resolve
    from pipelines.shape import shape_of
    from pipelines.submit import Cluster
    from pipelines.submit import submit as send

    resolved, overrides = resolve(
        task, data, profile=profile, backbone=backbone, settings=settings or [], split=split, elsewhere=True
    )
    request = Request(
        resolved,
        data,
        seed=shape_of(resolved).seed(resolved) if seed is None else seed,
        split=split,
        overrides=overrides,
        promote=promote,
    )
    made = send(
        request,
        Cluster(host.rstrip("/"), namespace, experiment, service_account),
        cron=cron,
        source_digest=source_digest(data),
        place=Place(pairs(environment or []), home_claim),
    )
    typer.echo(f"{made.kind} {made.id}\n{made.link}")


def pairs(settings: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping."""
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"{setting!r} is not NAME=VALUE.")
        found[name] = value
    return found
