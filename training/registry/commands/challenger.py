"""``retiderm models challenge`` and ``withdraw``: a version beside the champion."""

from __future__ import annotations

from typing import Annotated

import typer

from data.errors import UsageError
from training.registry.commands.parts import Json, Ref, Task, Who, Why, open_registry, print_json


def challenge(
    task: Task,
    version: Ref = "challenger",
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Its answers are kept and never returned. The default.")
    ] = False,
    share: Annotated[
        float | None, typer.Option("--share", help="It answers this share of the requests: 0.1 is a tenth.")
    ] = None,
    why: Why = "",
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Let a version answer beside the champion, in shadow or for a share of the requests.

    \b
    Examples:
      retiderm models challenge dr_grading 4                (in shadow)
      retiderm models challenge dr_grading 4 --share 0.1
    """
    from serving.core.challenger import SHADOW, SHARE, challenger_name
    from training.registry.challenge import challenge as carry_out

    if shadow and share is not None:
        raise UsageError("A challenger answers in shadow or for a share, not both.", hint="Leave one out.")
    registry = open_registry()
    done = carry_out(
        registry,
        registry.get(task, version),
        mode=SHADOW if share is None else SHARE,
        share=share or 0.0,
        why=why,
        who=who,
    )
    if as_json:
        print_json(done.to_dict())
        return
    already = "" if done.changed else " already"
    typer.echo(
        f"{task} version {done.version} answers {done.words}{already}, as {challenger_name(task)}, "
        f"beside version {done.champion}."
    )


def withdraw(task: Task, why: Why = "", who: Who = None, as_json: Json = False) -> None:
    """Let nothing answer beside the champion any more. What serves stays.

    Example: retiderm models withdraw dr_grading --why "it disagrees on dark images"
    """
    from training.registry.challenge import withdraw as carry_out

    gone = carry_out(open_registry(), task, why=why, who=who)
    if as_json:
        print_json(gone.to_dict() if gone is not None else None)
    elif gone is None:
        typer.echo(f"No version challenges {task}.")
    else:
        typer.echo(
            f"{task} version {gone.version} is withdrawn; it answered {gone.words} since {gone.since[:16]}."
        )
