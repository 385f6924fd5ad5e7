"""``retiderm train``: fit and judge a model on a dataset folder, without a pipeline.

``torchrun -m training.cli fit ...`` trains over several processes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import RetidermError, UsageError

if TYPE_CHECKING:
    from data.dataset import Dataset
    from training.task import Task

_EXAMPLES = """Train on a dataset folder; run it again after an interruption and it goes on:

  retiderm train fit --task dr_grading --data var/datasets/eyes --out var/eyes-run

Try another recipe:

  retiderm train fit --task dr_grading --data var/datasets/eyes --out var/try --set train.epochs=5

On four GPUs of one machine:

  torchrun --nproc-per-node=4 -m training.cli fit --task dr_grading --data var/datasets/eyes --out var/run"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=_EXAMPLES,
    help="Train and judge a model on a dataset folder, step by step.",
)

TaskName = Annotated[str, typer.Option("--task", "-t", help="A task's name or a task file.")]
DataFolder = Annotated[
    Path, typer.Option("--data", "-d", help="A canonical dataset, made by `retiderm data ingest`.")
]
RunFolder = Annotated[Path, typer.Option("--out", "-o", help="The training's folder.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting: train.epochs=10, weights=hub."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]


@app.callback()
def train() -> None:
    """Train and judge a model on a dataset folder."""


@app.command()
def fit(
    task: TaskName,
    data: DataFolder,
    out: RunFolder,
    profile: Annotated[
        str | None, typer.Option(help="The source's profile; the dataset's when not given.")
    ] = None,
    settings: Settings = None,
    backbone: Annotated[str | None, typer.Option(help="Another timm backbone, for example resnet50.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random; the task's when not given.")] = None,
    device: Device = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew whatever the folder holds.")] = False,
    tracking: Annotated[bool, typer.Option(help="Record the run in MLflow.")] = True,
) -> None:
    """Train a model; goes on where it was interrupted.

    Example: retiderm train fit -t skin_lesion -d var/datasets/skin -o var/skin-run -s train.epochs=5
    """
    from training.fit import fit as train_model

    dataset = _open(data)
    spec = _task(task, dataset, profile, settings, backbone)
    result = train_model(spec, dataset, out, device=device, seed=seed, resume=not fresh, tracking=tracking)
    typer.echo(f"{out}: {result.summary} ({result.seconds:.0f} s)")


@app.command()
def evaluate(
    out: RunFolder,
    data: DataFolder,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    save: Annotated[Path | None, typer.Option(help="Keep the answers here, as .npz.")] = None,
) -> None:
    """A trained folder's plain metrics on a split, without intervals or calibration.

    Choose by validation data; the test split is for the end, and `retiderm run` reports it with intervals.
    """
    from training.fit.metrics import head_metrics
    from training.model import load_model
    from training.predict import predict

    dataset = _open(data)
    model, spec = load_model(out)
    found = predict(model, dataset, split, task=spec, device=device)
    if save is not None:
        found.save(save)
    metrics = {
        head.name: head_metrics(found.logits[:, model.slices[head.name]], found.labels[head.name], head)
        for head in spec.heads
    }
    if as_json:
        typer.echo(json.dumps({"split": split, "images": len(found), "heads": metrics}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("head", "metric", split, title=f"{spec.title}, {len(found)} images")
    for head, values in metrics.items():
        for name, value in values.items():
            table.add_row(head, name, f"{value:.4f}")
    Console().print(table)


@app.command()
def knobs() -> None:
    """Every setting of a task's `train:`, with its default, its limits and what it does."""
    from rich.console import Console
    from rich.table import Table

    from training.spec.explain import explain

    table = Table()
    for heading in ("setting", "default", "limits"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it does")
    for entry in explain():
        table.add_row(entry.name, entry.default, entry.limits, entry.doc)
    Console().print(table)


def _open(folder: Path) -> Dataset:
    from data.dataset import Dataset

    return Dataset.open(folder)


def _task(
    name: str, dataset: Dataset, profile: str | None, settings: list[str] | None, backbone: str | None
) -> Task:
    from training.task import load_task, parse_settings

    overrides = parse_settings(settings or [])
    if backbone is not None:
        if overrides.get("backbone", backbone) != backbone:
            raise UsageError("--backbone and --set backbone=... name different backbones.")
        overrides["backbone"] = backbone
    task = load_task(name, profile=profile or dataset.info.get("profile"), overrides=overrides)
    if task.kind != "classification":
        raise UsageError(
            f"Task {task.name} is of kind {task.kind}: nothing of it is trained.",
            hint=f"Make its memory with the pipeline: retiderm run {task.name} --data KIND:PATH.",
        )
    return task


def main() -> None:
    """Run as a program of its own, for ``torchrun``: errors as one line, as ``retiderm`` shows them."""
    try:
        app(prog_name="python -m training.cli")
    except RetidermError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


if __name__ == "__main__":
    main()
