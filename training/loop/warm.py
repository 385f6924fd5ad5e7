"""A training that begins with the champion's weights instead of the backbone's first ones.

From scratch is the default: a network that goes on from weights that had fitted the older images often ends
worse than a fresh one on all of them (Ash & Adams 2020, "On warm-starting neural network training"), and its
result depends on all that came before. A warm start takes fewer epochs; the gate judges either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import IntegrityError, UsageError
from data.files import sha256_file
from training.loop import places

if TYPE_CHECKING:
    from serving.core.bundle import Card
    from training.registry.client import Registry
    from training.registry.version import Version

#: Where a training leaves its weights among its run's files, and the card's word for their SHA-256.
ARTIFACT, CARD_KEY = "training/model.safetensors", "trained_sha256"
_FROM_SCRATCH = "Train from scratch: leave --warm-start out."


def warm(registry: Registry, task: str, recipe: Mapping[str, Any]) -> tuple[dict[str, Any], Version]:
    """The recipe with the champion's weights in the place of the backbone's first ones.

    Their licence and what it forbids go along, so that the next card says it too.

    Raises:
        UsageError: there is no champion, its network is another, or its weights weren't kept.
        IntegrityError: they are not the weights that the bundle was exported from.
    """
    from training.registry.champion import champion_of
    from training.registry.ledger import Ledger

    champion = champion_of(registry, Ledger().entries(), task)
    if champion is None:
        raise UsageError(f"{task} has no champion to start from.", hint=_FROM_SCRATCH)
    card = registry.bundle(champion).card
    _same_network(card, champion, recipe)
    path = _weights(registry, champion, card)
    weights = {
        "source": str(path),
        "licence": "; ".join(dict.fromkeys(filter(None, (*card.dataset.licences, card.weights.licence))))
        or None,
        "forbids": list(card.forbids),
        "sha256": sha256_file(path),
    }
    return {**recipe, "weights": weights}, champion


def _same_network(card: Card, champion: Version, recipe: Mapping[str, Any]) -> None:
    named = f"The champion, version {champion.version},"
    if card.backbone != recipe["backbone"]:
        raise UsageError(
            f"{named} is a {card.backbone}; the task asks for {recipe['backbone']}.", hint=_FROM_SCRATCH
        )
    theirs = {head.name: list(head.classes) for head in card.heads}
    ours = {name: list(head["classes"]) for name, head in recipe["heads"].items()}
    if theirs != ours:
        raise UsageError(f"{named} has other heads or classes than the task.", hint=_FROM_SCRATCH)


def _weights(registry: Registry, champion: Version, card: Card) -> Path:
    """The champion's weights in the loop's folder, fetched where they aren't there yet."""
    expected = card.extra.get(CARD_KEY)
    if not isinstance(expected, str):
        raise UsageError(
            f"Version {champion.version} was made without keeping its weights for a warm start.",
            hint=_FROM_SCRATCH,
        )
    folder = places.place(champion.task, places.WEIGHTS)
    path = folder / f"{champion.task}-{champion.version}-{expected[:12]}.safetensors"
    if path.is_file() and sha256_file(path) == expected:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        fetched = registry.download(champion, ARTIFACT, Path(temporary))
        if fetched is None:
            raise UsageError(
                f"The weights of version {champion.version} are no longer in MLflow.", hint=_FROM_SCRATCH
            )
        if sha256_file(fetched) != expected:
            raise IntegrityError(
                f"The weights that MLflow keeps for version {champion.version} are not those that its bundle "
                "was exported from.",
                hint=_FROM_SCRATCH,
            )
        fetched.replace(path)
    return path
