"""The quality commands of ``retiderm data``."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to ``retiderm data``."""
