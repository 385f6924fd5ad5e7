"""The bundle: one folder with a model and all that is needed to serve, judge and watch it."""

from serving.core.bundle.bundle import CARD, GOLDEN, REFERENCE, Bundle, write_bundle
from serving.core.bundle.card import (
    FORMAT,
    Card,
    DatasetCard,
    ExplanationCard,
    FileCard,
    HeadCard,
    InputCard,
    PrecisionCard,
    WeightsCard,
)

__all__ = [
    "CARD",
    "FORMAT",
    "GOLDEN",
    "REFERENCE",
    "Bundle",
    "Card",
    "DatasetCard",
    "ExplanationCard",
    "FileCard",
    "HeadCard",
    "InputCard",
    "PrecisionCard",
    "WeightsCard",
    "write_bundle",
]
