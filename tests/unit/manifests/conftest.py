"""Rendered manifests, once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.manifests.rendering import MANIFESTS, OVERLAYS, REPOSITORY, Document, kustomize


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Document]]:
    """An overlay's documents by its name."""
    known: dict[str, list[Document]] = {}

    def render(overlay: str) -> list[Document]:
        if overlay not in known:
            known[overlay] = kustomize(MANIFESTS / "overlays" / overlay)
        return known[overlay]

    return render


@pytest.fixture(params=OVERLAYS)
def documents(request: pytest.FixtureRequest, rendered: Callable[[str], list[Document]]) -> list[Document]:
    """Each overlay in turn."""
    return rendered(request.param)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
