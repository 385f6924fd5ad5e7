"""What the commands of :mod:`pipelines.commands.loop` share: their options, and the request made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import UsageError

if TYPE_CHECKING:
    from pipelines.retrain import Retrain

Task = Annotated[str, typer.Argument(help="A task's name (`retiderm tasks list`) or a task file.")]
Host = Annotated[str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Kubeflow Pipelines' address.")]
Namespace = Annotated[str | None, typer.Option(help="Of a multi-user Kubeflow.")]
Experiment = Annotated[str, typer.Option(help="Kubeflow's experiment to file it under.")]
Account = Annotated[str | None, typer.Option("--service-account", help="The pods' service account.")]
Labels = Annotated[
    str,
    typer.Option(
        help="Where labels come from: the gateway's address (https://…), a folder or a zip. The gateway's "
        "token is read from RETIDERM_REVIEW_TOKEN."
    ),
]
Base = Annotated[
    str,
    typer.Option(
        help="The canonical dataset that they are added to.",
        show_default="the loop's newest, else what the champion learned from",
    ),
]
Correct = Annotated[
    bool, typer.Option("--correct", help="Readers' labels take the place of those that the base has.")
]
Extend = Annotated[
    bool, typer.Option("--extend-test", help="The test part grows; a new comparison line begins.")
]
Leave = Annotated[
    bool,
    typer.Option("--leave-conflicts", help="Leave out images whose readers disagree, where nobody decided."),
]
Licence = Annotated[str, typer.Option(help="The licence of the new images.", show_default="not stated")]
Forbids = Annotated[str, typer.Option(help="Uses that it forbids, such as commercial, with commas between.")]
Warm = Annotated[
    bool, typer.Option("--warm-start", help="Begin with the champion's weights instead of from scratch.")
]
WhenDue = Annotated[
    bool, typer.Option("--when-due", help="Only where enough labels, or some and drift, have gathered.")
]
Anyway = Annotated[
    bool,
    typer.Option("--anyway", help="Also where no label is new: with other settings, or another seed."),
]
Needed = Annotated[
    int | None,
    typer.Option(min=1, help="How many new labels are enough.", show_default="5 % of the base, at least 50"),
]
Drift = Annotated[
    str,
    typer.Option(metavar="FILE", help="The JSON of `retiderm drift`: while it alarms, any label will do."),
]
Seed = Annotated[int | None, typer.Option(help="Of everything random; the task's own when not given.")]
Backbone = Annotated[str | None, typer.Option(help="Any timm backbone.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the task, for example train.epochs=3. Repeatable."
    ),
]
Profile = Annotated[
    str | None, typer.Option(help="The task's profile for these images.", show_default="the base's")
]
Promote = Annotated[
    bool,
    typer.Option(
        "--promote/--no-promote", help="Let an accepted version serve; else it is challenger and waits."
    ),
]
Environment = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="For every step (no secrets). Repeatable."),
]
Claim = Annotated[str, typer.Option(metavar="CLAIM", help="The volume claim for RETIDERM_HOME.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def request_of(
    task: str,
    base: str,
    *,
    labels: str,
    seed: int | None,
    backbone: str | None,
    settings: list[str],
    profile: str | None,
    warm: bool,
    see: str = "",
    **given: Any,
) -> Retrain:
    """The request, with the task as it will run. ``see`` is the base as a source, where it can be seen."""
    from pipelines.request import overrides_of, resolve
    from training.task import load_task

    if see:
        spec, overrides = resolve(task, see, profile=profile, backbone=backbone, settings=settings)
    else:
        overrides = overrides_of(backbone, settings)
        spec = load_task(task, profile=profile, overrides=overrides)
    if warm and spec.kind != "classification":
        raise UsageError(
            f"The task {spec.name} is of kind {spec.kind}: nothing is trained, so nothing starts warm.",
            hint="Leave --warm-start out.",
        )
    return made_of(
        spec,
        source=f"review:{labels}",
        export=labels,
        base=base,
        seed=seed,
        overrides=overrides,
        warm=warm,
        **given,
    )


def made_of(spec: Any, *, source: str = "", seed: int | None = None, **given: Any) -> Retrain:
    """The request for a task as it will run; its own seed where none is given."""
    from pipelines.retrain import Retrain
    from pipelines.shape import shape_of

    return Retrain(
        task=spec, source=source, seed=shape_of(spec).seed(spec) if seed is None else seed, **given
    )


def words(text: str) -> tuple[str, ...]:
    """A list with commas between."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
