"""``retiderm anomaly``: the S4 service, and the extractor that it needs once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.patchcore.cli import serve

app = typer.Typer(help="PatchCore over HTTP (contract S4): serve it, and make its extractor.")
app.command()(serve)


@app.command()
def extractor(
    task: Annotated[str, typer.Argument(help="A task of kind anomaly, or a task file.")] = "anomaly",
    profile: Annotated[
        str | None, typer.Option(help="The task's profile, such as dinov2: the S4 service's own model.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With this changed, such as weights=FILE."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder. Default: RETIDERM_HOME/extractors/BACKBONE-SIZE.")
    ] = None,
) -> None:
    """Write the frozen network as ONNX, proved against torch, for servers that have no torch.

    A memory belongs to the extractor that made it: another one means fitting again.
    """
    from data.errors import UsageError
    from serving.patchcore.settings import extractor_name, extractors
    from training.patchcore.export import export_extractor
    from training.patchcore.features import build_features
    from training.task import load_task, parse_settings

    chosen = load_task(task, profile=profile, overrides=parse_settings(settings or []))
    if chosen.kind != "anomaly":
        raise UsageError(
            f"The task {chosen.name!r} is of kind {chosen.kind}.", hint="Name one of kind anomaly: anomaly."
        )
    features = build_features(chosen)
    folder = out or extractors() / extractor_name(features.backbone_name, features.input_size)
    card = export_extractor(features, chosen, folder)
    parity = card.extra["parity"]
    height, width = card.input_size
    typer.echo(
        f"{card.backbone} at {height}×{width}: {card.grid[0]}×{card.grid[1]} patches of {card.dim} numbers"
    )
    typer.echo(f"weights: {card.weights.source} ({card.weights.licence})")
    typer.echo(f"torch and ONNX Runtime: patches {parity['max_difference']:.1e} apart at most")
    typer.echo(f"retiderm anomaly serve --extractor {folder}")
