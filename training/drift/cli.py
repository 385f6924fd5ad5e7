"""``retiderm drift``: hold recent answers against what a model was made for."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from serving.core.drift import DriftReport

_EXAMPLES = """A window of photographs, answered here without a server, and the judgement on it:

  retiderm drift window photos/ --bundle var/serving/bundles/skin_lesion --out var/drift/monday

  retiderm drift check var/drift/monday --bundle var/serving/bundles/skin_lesion --out var/drift/reports

What a gateway has, by its token in RETIDERM_REVIEW_TOKEN:

  retiderm drift check https://gateway.example.org --bundle var/serving/bundles/skin_lesion

All windows of a folder, and an exit code for a script:

  retiderm drift check var/drift --bundle var/serving/bundles/skin_lesion --exit-code || echo "look at it" """

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=_EXAMPLES,
    help="Whether images, answers and labels still are what a model was made for.",
)

BundleFolder = Annotated[Path, typer.Option("--bundle", "-b", help="The bundle that gave the answers.")]
Level = Annotated[float, typer.Option(help="Chance that a window without a shift alarms.")]
Size = Annotated[int, typer.Option(help="Images in a full window.")]

#: The exit code of an alarm, apart from those of errors.
ALARM = 3

_STYLES = {"ok": "green", "waiting": "dim", "warning": "yellow", "critical": "bold red"}


@app.callback()
def drift() -> None:
    """Whether images, answers and labels still are what a model was made for."""


@app.command()
def check(
    windows: Annotated[
        list[str],
        typer.Argument(
            help="Windows, folders of windows, or the gateway's address (its token: RETIDERM_REVIEW_TOKEN).",
            metavar="WINDOW…",
        ),
    ],
    bundle: BundleFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep report.json and page.html of each window here.")
    ] = None,
    page: Annotated[bool, typer.Option(help="With --out: make the page too.")] = True,
    level: Level = 0.01,
    size: Size = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if any window alarms.")] = False,
) -> None:
    """Judge windows of recent answers.

    Example: retiderm drift check var/drift/monday --bundle DIR --out var/drift/reports
    """
    from serving.core.bundle import Bundle
    from serving.core.drift import Settings
    from training.drift.fetch import fetch_windows, is_address
    from training.drift.run import judge_windows

    opened = Bundle.open(bundle)
    with tempfile.TemporaryDirectory() as folder:
        places = [
            Path(folder) / str(at) if is_address(place) else Path(place) for at, place in enumerate(windows)
        ]
        for place, address in zip(places, windows, strict=True):
            if is_address(address):
                fetch_windows(address, opened.card.task, place)
        found = judge_windows(opened, places, Settings(level=level, size=size), out=out, page=page)
    if as_json:
        typer.echo(json.dumps([one.document for one in found], indent=2))
    else:
        from rich.console import Console

        for one in found:
            show(Console(), one.name, one.report)
        if out is not None:
            typer.echo(f"Reports: {out}")
    if exit_code and any(one.report.alarm for one in found):
        raise typer.Exit(ALARM)


@app.command()
def window(
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them, in this order.")],
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The window's folder; one there is replaced.")],
    limit: Annotated[int, typer.Option(help="At most so many, those that come first.")] = 200,
) -> None:
    """Answer photographs in this process and keep what drift is judged on.

    Example: retiderm drift window photos/ --bundle DIR --out var/drift/monday
    """
    from data.paths import home
    from serving.core.bundle import Bundle
    from serving.core.drift import WindowInfo, write_window
    from training.drift.collect import Collector

    files = _files(images)[:limit]
    opened = Bundle.open(bundle)
    collector = Collector.open(opened)
    try:
        made = collector.window(path.read_bytes() for path in files)
    finally:
        collector.close()
    if out.resolve() == home().root:
        raise UsageError(f"{out} holds everything made, and would be replaced.", hint="Name a new folder.")
    write_window(out, made, WindowInfo(opened.card.task, opened.digest, source="files"))
    answered = made.images if made.gradable is None else int(made.gradable.sum())
    typer.echo(f"{out}: {made.images} images, {answered} answered")


@app.command()
def measures(bundle: BundleFolder, level: Level = 0.01, size: Size = 200) -> None:
    """What a bundle can be watched by, and what it can't and why.

    Example: retiderm drift measures --bundle DIR
    """
    from rich.console import Console
    from rich.table import Table

    from serving.core.bundle import Bundle
    from serving.core.drift import Reference, Settings

    settings = Settings(level=level, size=size)
    reference = Reference.of(Bundle.open(bundle))
    table = Table(
        "measure", "head", "held-out images", *(f"alarms from, at {n}" for n, _ in settings.schedule)
    )
    for measure in reference.measures:
        limits = [
            f"{reference.null(measure, n, settings).threshold(part / len(reference.measures)):.2f}"
            for n, part in settings.schedule
        ]
        table.add_row(measure.name, measure.head or "", str(len(measure.values)), *limits)
    console = Console()
    console.print(table)
    console.print("1 is what chance gives on average.")
    for (name, head), why in reference.absent.items():
        console.print(f"{name}{f' of {head}' if head else ''}: {why}")


def show(console: Console, name: str, report: DriftReport) -> None:
    """Print a report: the gravest first."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(f"{name}: {report.severity}", _STYLES[report.severity]))
    console.print(Text(report.reason))
    table = Table("measure", "verdict", "of its threshold", "why")
    for finding in (*report.alarms, *(one for one in report.findings if not one.alarm)):
        times = (
            f"{finding.statistic / finding.threshold:.2f}" if finding.threshold and finding.statistic else ""
        )
        measure = f"{finding.head} {finding.measure}" if finding.head else finding.measure
        verdict = Text(finding.severity, _STYLES[finding.severity])
        table.add_row(Text(measure.replace("_", " ")), verdict, times, Text(finding.reason))
    console.print(table)


_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def _files(places: list[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES)
        elif place.is_file():
            found.append(place)
        else:
            raise UsageError(f"There is no file or folder {place}.")
    if not found:
        raise UsageError("There is no photograph there.", hint=f"Suffixes: {', '.join(sorted(_SUFFIXES))}.")
    return found
