"""A bundle that answers, whatever its kind. Without a web framework."""

from __future__ import annotations

from serving.core.runtimes.chain import check_precision
from serving.kinds import kind_of
from serving.kinds.base import Batch, Engine
from serving.source import Served

__all__ = ["Batch", "Engine", "load_engine"]


def load_engine(served: Served, *, precision: str = "auto", threads: int | None = None) -> Engine:
    """Open, verify every file, load, and hold the answers to the golden images against the stored ones.

    ``precision`` is one of the card's approved ones, or ``auto``: what ``retiderm tune`` chose on this kind
    of host, else fp32. ``threads`` of None is the container's CPU quota.

    Raises:
        ServingError: the task answers on a fixed chain of runtimes, and the precision is none of its.
        IntegrityError: the bundle was altered, is another one, or doesn't give its golden answers.
    """
    # The card is read for its kind alone; the kind's loader verifies every file.
    card = served.open(verify=False).card
    check_precision(card.task, precision)
    return kind_of(card.kind).load(served, precision=precision, threads=threads)
