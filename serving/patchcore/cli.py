"""``retiderm anomaly serve``: the S4 service on this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from data.errors import RetidermError, ServingError, UsageError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


@app.callback()
def _group() -> None:
    """Anomaly detection by PatchCore memories."""


@app.command()
def serve(
    models_dir: Annotated[
        Path | None, typer.Option(help="Where memories lie. MODELS_DIR; default: models.")
    ] = None,
    extractor: Annotated[
        Path | None,
        typer.Option(
            help="Folder of extractor.onnx and extractor.json. PATCHCORE_EXTRACTOR; "
            "default: RETIDERM_HOME/extractors/MODEL_NAME-INPUT_SIZE."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address. HOST; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0: any. PORT; default: 8000.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. DEVICE; default: auto.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of one pass. Default: the CPU quota.")] = None,
    open_access: Annotated[
        bool,
        typer.Option(
            "--open-access", help="Listen beyond this machine, though nobody is asked who they are."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Real stack traces in answers: never where others can ask.")
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address here when ready; removed at the stop.")
    ] = None,
    die_with_parent: Annotated[bool, typer.Option("--die-with-parent", hidden=True)] = False,
) -> None:
    """Fit, calibrate and infer regions of interest over HTTP (contract S4), until Ctrl-C.

    Options win over the environment, whose names docs/s4.md lists. The extractor is made once by
    [bold]retiderm anomaly extractor[/bold].
    """
    import argparse

    from serving.options import set_up
    from serving.patchcore.app import create_app
    from serving.patchcore.server import serve as run
    from serving.patchcore.settings import Settings

    set_up(argparse.Namespace(die_with_parent=die_with_parent))
    named: dict[str, Any] = {
        "models_dir": models_dir,
        "extractor": extractor,
        "host": host,
        "port": port,
        "device": device,
        "threads": threads,
        "open_access": open_access or None,
        "debug": debug or None,
    }
    settings = replace(Settings.from_env(), **{k: v for k, v in named.items() if v is not None})
    run(settings, create_app, ready_file)


def main() -> None:
    """``python -m serving.patchcore``: exits 0, 1 (it failed) or 2 (wrongly asked)."""
    try:
        app()
    except RetidermError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) and not isinstance(error, ServingError) else 1)


if __name__ == "__main__":
    main()
