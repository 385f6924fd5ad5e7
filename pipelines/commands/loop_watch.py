"""``retiderm loop watch``: the drift pipeline on Kubeflow, once or on a schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.loop_parts import (
    Account,
    Claim,
    Environment,
    Experiment,
    Host,
    Namespace,
    Profile,
    Settings,
    Task,
)


def watch(
    task: Task,
    windows: Annotated[
        str,
        typer.Option(
            help="The gateway's address as the cluster sees it (http://…), or a folder of windows under the "
            "volume that RETIDERM_HOME is."
        ),
    ],
    host: Host,
    home_claim: Claim,
    cron: Annotated[
        str | None,
        typer.Option(help="Look again and again: '0 0 5 * * *' is daily at 5 (seconds first)."),
    ] = None,
    level: Annotated[float, typer.Option(help="Chance that a window without a shift alarms.")] = 0.01,
    size: Annotated[int, typer.Option(help="Images in a full window; the gateway's are of 200.")] = 200,
    settings: Settings = None,
    profile: Profile = None,
    environment: Environment = None,
    namespace: Namespace = None,
    experiment: Experiment = "retiderm",
    service_account: Account = None,
) -> None:
    """Send the pipeline `drift` to Kubeflow: it judges the newest answers of a task's champion.

    The token for Kubeflow is read from RETIDERM_KFP_TOKEN; that for the gateway is a secret of the step
    `drift` in the task file.

    Example: retiderm loop watch dr_grading --windows http://gateway --host URL --home-claim retiderm-home
    --cron '0 0 5 * * *'
    """
    from pipelines.cluster import Place
    from pipelines.commands.cluster import pairs
    from pipelines.drift import Look
    from pipelines.submit import Cluster, submit
    from serving.core.drift import Settings as Strictness
    from training.task import load_task, parse_settings

    spec = load_task(task, profile=profile, overrides=parse_settings(settings or []))
    made = submit(
        Look(spec, windows, settings=Strictness(level=level, size=size)),
        Cluster(host.rstrip("/"), namespace, experiment, service_account),
        cron=cron,
        place=Place(pairs(environment or []), home_claim),
    )
    typer.echo(f"{made.kind} {made.id}\n{made.link}")
