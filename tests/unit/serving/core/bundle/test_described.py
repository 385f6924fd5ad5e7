"""docs/bundle.md describes every field of the card: four other parts build on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.core.bundle import (
    Card,
    DatasetCard,
    ExplanationCard,
    HeadCard,
    InputCard,
    PrecisionCard,
    WeightsCard,
)
from serving.core.bundle.card import PROOFS

TEXT = (Path(__file__).parents[5] / "docs" / "bundle.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "part", [Card, HeadCard, InputCard, WeightsCard, ExplanationCard, PrecisionCard, DatasetCard]
)
def test_every_field_is_described(part: type) -> None:
    missing = [field.name for field in dataclasses.fields(part) if f"`{field.name}`" not in TEXT]
    assert not missing


def test_every_proof_is_described() -> None:
    assert all(f"| `{name}` |" in TEXT for names in PROOFS.values() for name in names)
