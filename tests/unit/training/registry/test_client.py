"""training/registry/catalogue.py, files.py: what the registry lists, and what it reads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.training.registry.world import TASK
from training.registry.client import Registry


def test_models_of_other_projects_are_left_out(registry: Registry, make: Any) -> None:
    registry.client.create_registered_model("theirs")
    make()
    assert registry.tasks() == [TASK]
    assert registry.versions("theirs") == []


def test_a_damaged_cache_is_fetched_again(
    registry: Registry, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make()
    # As through a server, where nothing can be read in place.
    monkeypatch.setattr(Registry, "_local", lambda self, version: None)
    cached = registry.bundle_path(version)
    assert "cache" in cached.parts
    (cached / "model.onnx").write_bytes(b"damaged")
    assert registry.bundle(version).digest == version.digest
