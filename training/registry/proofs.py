"""Which proofs of parity a bundle must carry before it may be a version at all."""

from __future__ import annotations

from collections.abc import Mapping

from serving.core.bundle import Card
from serving.core.bundle.card import PROOFS


def unproved(card: Card) -> list[str]:
    """What is missing or failed, a sentence each; empty when all is proved."""
    found = []
    for name in PROOFS[card.kind]:
        proof = card.parity.get(name)
        if not isinstance(proof, Mapping):
            found.append(f"The proof of parity {name!r} is missing.")
        elif proof.get("passed") is not True:
            found.append(f"The proof of parity {name!r} failed.")
    failed = [
        name
        for name, proof in card.parity.items()
        if name not in PROOFS[card.kind] and isinstance(proof, Mapping) and proof.get("passed") is False
    ]
    return found + [f"The proof of parity {name!r} failed." for name in failed]
