"""``retiderm models learned``: who learned from which images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data.errors import UsageError
from training.registry.commands.parts import Json, open_registry, print_json


def learned(
    sha256_file: Annotated[
        Path, typer.Option("--sha256-file", help="Images: the SHA-256 of each on a line of its own.")
    ],
    as_json: Json = False,
) -> None:
    """Say which versions had learned from these images, as the gateway asks after an erasure.

    Example: retiderm models learned --sha256-file erased.txt
    """
    from training.loop.learned import learned as ask

    try:
        images = sha256_file.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise UsageError(f"{sha256_file} can't be read as a list of SHA-256.") from error
    found = ask(open_registry(), images)
    if as_json:
        print_json(found.to_dict())
        return
    for one in found.versions:
        typer.echo(f"{one.model} version {one.version} learned from {len(one.images)} of them.")
    for one in found.unknown:
        typer.echo(f"{one.model} version {one.version}: its data ({one.dataset_digest[:19]}…) is not here.")
    if not found.versions and not found.unknown:
        typer.echo("No version had learned from any of them.")
