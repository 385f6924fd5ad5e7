"""``retiderm models import``: a model that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.registry.commands.parts import Json, open_registry, print_judged, triple, words


def import_(
    task: Annotated[str, typer.Option("--task", help="The task, or a task file.")],
    weights: Annotated[
        Path, typer.Option("--weights", help="ONNX, TorchScript, safetensors or a torch state dict.")
    ],
    data: Annotated[Path, typer.Option("--data", help="The canonical dataset to calibrate and judge it on.")],
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="The timm model of a state dict, e.g. resnet50.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="The order of its outputs, by class name; the task's when not given."),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="The licence of the weights.")] = "",
    forbids: Annotated[
        str, typer.Option("--forbids", help="Uses that the licence forbids, e.g. commercial.")
    ] = "",
    mean: Annotated[
        str | None, typer.Option("--mean", help="Normalisation of its input, 0 to 1 scale: r,g,b.")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", help="As --mean.")] = None,
    output: Annotated[str | None, typer.Option("--output", help="An ONNX file's output to take.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="The model gives probabilities, not logits.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code inside a TorchScript file. Only if you trust it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take in a model that was trained elsewhere, through the same proofs, evaluation and gate as our own.

    \b
    Examples:
      retiderm models import --task dr_grading --weights old.pth --architecture resnet50 --data DATASET
      retiderm models import --task skin_lesion --weights model.onnx --mean .485,.456,.406 \\
        --std .229,.224,.225 --classes mel,nv,bcc,akiec,bkl,df,vasc --data DATASET
    """
    from training.registry.importer import Foreign, import_model

    foreign = Foreign(
        weights=weights,
        architecture=architecture,
        classes=words(classes),
        licence=licence,
        forbids=words(forbids) or (),
        mean=triple(mean, "--mean"),
        std=triple(std, "--std"),
        output=output,
        probabilities=probabilities,
        trust=trust,
    )
    version, decision = import_model(open_registry(), task, foreign, data)
    print_judged(version, decision, as_json)
    if not as_json and decision.accepted:
        typer.echo(f"Let it serve: retiderm models promote {version.task} {version.version}")
