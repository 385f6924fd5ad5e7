"""``retiderm tasks``: what can be predicted, and with which settings."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="The tasks: what is predicted, with which settings.")


@app.command("list")
def list_() -> None:
    """The tasks that come with the package."""
    from rich.console import Console
    from rich.table import Table

    from training.task import load_task, profile_names, task_names

    table = Table("task", "what", "heads", "backbone", "profiles")
    for name in task_names():
        task = load_task(name)
        heads = "; ".join(f"{head.name}: {len(head.classes)} classes" for head in task.heads)
        table.add_row(name, task.title, heads, task.backbone, ", ".join(profile_names(name)) or "–")
    Console().print(table)


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="A task's name or a task file.")],
    profile: Annotated[str | None, typer.Option(help="With a profile's changes applied.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With this changed.")
    ] = None,
) -> None:
    """A task with every setting stated, as a YAML file that can be changed and run."""
    import yaml

    from training.task import load_task, parse_settings

    found = load_task(task, profile=profile, overrides=parse_settings(settings or []))
    typer.echo(yaml.safe_dump(found.to_dict(), sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def check(file: Annotated[str, typer.Argument(help="A task file.")]) -> None:
    """Read a task file with each of its profiles, and say what is wrong or that nothing is."""
    from training.task import load_task, profile_names

    task = load_task(file)
    for profile in profile_names(file):
        load_task(file, profile=profile)
    typer.echo(f"{task.name}: fine ({len(task.heads)} head(s), {task.digest[:19]})")
