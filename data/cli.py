"""``retiderm data``: look at sources, make datasets, check and show them, draw synthetic images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from data.errors import UsageError
from data.quality.cli import register

if TYPE_CHECKING:
    from data.checks import CheckReport, Finding
    from data.dataset import Dataset, Head

# A blank line between two lines keeps them apart in the help.
_EXAMPLES = """A first look, with drawn images:

  retiderm data ingest synthetic-fundus?n=200 --heads grade=0,1,2,3,4 --out var/demo

  retiderm data check var/demo --report var/demo-report

  retiderm data show var/demo

Your own images, one folder a class:

  retiderm data ingest folders:/data/eyes --heads grade=healthy,ill --out var/eyes"""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, epilog=_EXAMPLES)

_SOURCES_HELP = "Where the images come from: KIND:PATH?option=value; `retiderm data sources` lists the kinds."


@app.callback()
def data() -> None:
    """From labelled photographs to a checked dataset with a version."""


@app.command()
def sources(
    kind: Annotated[str | None, typer.Argument(help="Show one kind with its layout and options.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the kinds of source, what each looks like on disk, and under what licence it is.

    Example: retiderm data sources idrid
    """
    from data.sources import KINDS

    if kind is not None and kind not in KINDS:
        raise UsageError(f"There is no kind of source {kind!r}.", hint=f"There are {', '.join(KINDS)}.")
    chosen = [KINDS[kind]] if kind else list(KINDS.values())
    listed = [
        {
            "kind": each.kind,
            "title": each.title,
            "layout": each.layout,
            "options": dict(each.options),
            "licence": each.licence.name,
            "forbids": list(each.licence.forbids),
            "profile": each.profile,
            "synthetic": each.synthetic,
        }
        for each in chosen
    ]
    if as_json:
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    if kind is None:
        table = Table("kind", "what", "licence", "forbids")
        for each in chosen:
            table.add_row(each.kind, each.title, each.licence.name, ", ".join(each.licence.forbids))
        Console().print(table)
        return
    for name, value in listed[0].items():
        if isinstance(value, dict):
            typer.echo(f"{name}:" + "".join(f"\n  {option}: {text}" for option, text in value.items()))
        else:
            typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCES_HELP)],
    out: Annotated[Path, typer.Option(help="The dataset's folder; one that is there is replaced, whole.")],
    heads: Annotated[
        list[str] | None,
        typer.Option(help="A head and its classes in order: grade=no_dr,mild,severe. Once a head."),
    ] = None,
    task_file: Annotated[
        Path | None,
        typer.Option(help="Take the heads (and the task's name) from this task file.", exists=True),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The task's name; by default the task file's, or the head's.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="stratified:SEED (default, fills in what isn't given), one-class:SEED (only the head's "
            "first class is cut into train), or fold:K/N."
        ),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Quality profile; by default the source's own.")] = None,
    store: Annotated[Path | None, typer.Option(help="Where images are kept once by content.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Take about so many images, evenly over classes.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print dataset.json instead of a summary.")] = False,
) -> None:
    """Make a canonical dataset of a source: read, strip place and device, measure, split, version.

    \b
    Examples:
      retiderm data ingest idrid:/data/idrid --task-file training/tasks/dr_grading.yaml --out var/idrid
      retiderm data ingest ham10000:/data/ham --heads dx=akiec,bcc,bkl,df,mel,nv,vasc --out var/ham
      retiderm data ingest idrid:/data/idrid --heads grade=0,1,2,3,4 --split fold:0/5 --out var/fold0
    """
    from data.ingest import ingest as make

    named, chosen = read_heads(heads or [], task_file)
    made = make(
        source,
        chosen,
        out,
        task=task or named,
        store=store,
        split_rule=split,
        quality_profile=profile,
        limit=limit,
    )
    if as_json:
        typer.echo(json.dumps(dict(made.info), indent=2, ensure_ascii=False))
    else:
        _summary(made)


@app.command()
def check(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A folder made by `retiderm data ingest`.")
    ],
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html, report.json and gx.json; it can't be inside DATASET."),
    ] = None,
    files: Annotated[bool, typer.Option(help="Read every image again and compare its digest.")] = True,
) -> None:
    """Check a dataset with Great Expectations; exits with 1 and names the rows if it fails.

    Example: retiderm data check var/datasets/idrid --report var/checks/idrid
    """
    from data.checks import check as run
    from data.checks import require
    from data.dataset import Dataset

    opened = Dataset.open(dataset)
    found = run(opened, files=files)
    if report is not None:
        if report.resolve().is_relative_to(dataset.resolve()):
            raise UsageError(
                f"The report {report} would lie inside the dataset and change it.",
                hint="Choose a folder beside it.",
            )
        typer.echo(f"Report: {found.write_report(report)}")
    _findings(found)
    require(found)


@app.command()
def show(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A folder made by `retiderm data ingest`.")
    ],
    rows: Annotated[int, typer.Option(help="Show so many rows of the manifest too.", min=0)] = 0,
    verify: Annotated[bool, typer.Option(help="Compare rows and images with the digests.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print dataset.json.")] = False,
) -> None:
    """Show what a dataset is: digest, licence, splits, classes.

    Example: retiderm data show var/datasets/idrid --rows 5 --verify
    """
    from data.dataset import Dataset

    opened = Dataset.open(dataset)
    if verify:
        opened.verify()
    if as_json:
        typer.echo(json.dumps(dict(opened.info), indent=2, ensure_ascii=False))
        return
    _summary(opened)
    if verify:
        typer.echo("Verified: every row and image is what the digests say.")
    if rows:
        typer.echo(opened.frame().head(rows).to_string())


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder to write to: images/ and labels.csv.")],
    kind: Annotated[
        str, typer.Option(help="fundus (DR grades 0-4), lesion (HAM10000's 7 diagnoses) or face.")
    ] = "fundus",
    n: Annotated[int, typer.Option(help="How many images.", min=1)] = 20,
    size: Annotated[int, typer.Option(help="Side in pixels.", min=32, max=4096)] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds draw other images.", min=0)] = 0,
) -> None:
    """Draw synthetic images, labelled so, to try things out without any patient's picture.

    What is written can be ingested as the kind `labels`.

    Example: retiderm data synth --kind lesion --n 70 --out drawn
    """
    from data.synthetic.folder import write_folder

    table = write_folder(kind, n, out, size=size, seed=seed)
    typer.echo(f"{n} synthetic {kind} images in {out / 'images'}, labels in {table}.")


def read_heads(specs: list[str], task_file: Path | None) -> tuple[str, tuple[Head, ...]]:
    """The task's name and heads from ``NAME=CLASS,CLASS`` texts or a task file."""
    import yaml

    from data.dataset import Head

    if bool(specs) == (task_file is not None):
        raise UsageError("Name the heads: either --heads grade=no_dr,mild,… or --task-file FILE.")
    if task_file is not None:
        try:
            values = yaml.safe_load(task_file.read_text(encoding="utf-8"))
            heads = tuple(
                Head(str(name), tuple(str(each) for each in head["classes"]))
                for name, head in values["heads"].items()
            )
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{task_file} is no task file: {type(error).__name__}: {error}.",
                hint="A task file has `heads:` with `classes:` for each.",
            ) from error
        return str(values.get("name", task_file.stem)), heads
    heads = ()
    for spec in specs:
        name, equals, classes = spec.partition("=")
        names = tuple(each.strip() for each in classes.split(",") if each.strip())
        if not equals or not name.strip() or not names:
            raise UsageError(f"{spec!r} is no head.", hint="Write it as grade=no_dr,mild,severe.")
        heads = (*heads, Head(name.strip(), names))
    return heads[0].name, heads


def _summary(dataset: Dataset) -> None:
    info = dataset.info
    drawn = " (synthetic)" if info["synthetic"] else ""
    typer.echo(f"{dataset.root}: {info['images']} images{drawn} for {dataset.task}, from {info['source']}")
    typer.echo(f"digest {dataset.digest}\ntest   {dataset.test_digest}")
    forbids = f"; forbids {', '.join(info['forbids'])}" if info["forbids"] else ""
    typer.echo(
        f"licence {info['licence']}{forbids}; split by {info['split_rule']}; profile {info['profile']}"
    )
    for head in dataset.heads:
        table = Table(head.name, *info["counts"], "all")
        for name in head.classes:
            numbers = [counts[head.name][name] for counts in info["counts"].values()]
            table.add_row(name, *(str(number) for number in (*numbers, sum(numbers))))
        Console().print(table)
    if info.get("rejected"):
        typer.echo(f"{info['rejected']} images could not be decoded: {dataset.root / 'rejected.csv'}")


def _findings(report: CheckReport) -> None:
    for word, findings in (("FAILED ", report.failures), ("warning", report.warnings)):
        for each in findings:
            typer.echo(f"{word} {each.check}: {each.message} {each.count} found.{_rows(each)}")
    state = "passed" if report.passed else "failed"
    counts = f"{len(report.failures)} failures, {len(report.warnings)} warnings, {len(report.checked)} rules"
    typer.echo(f"{state}: {counts}")


def _rows(finding: Finding, limit: int = 5) -> str:
    shown = "".join(f"\n    {row}" for row in finding.rows[:limit])
    more = len(finding.rows) - limit
    return shown + (f"\n    and {more} more" if more > 0 else "")


register(app)
