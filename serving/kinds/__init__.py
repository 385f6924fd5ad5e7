"""What kinds of model there are, one folder each: how it answers, and how its answers look on every wire.

The servers know none of them: they ask :func:`kind_of` with a card's ``kind``, and work with the protocols
of ``base``. A kind's folder is imported when it is first asked for, and what loads its model later still, so
that a transformer needs no runtime and a server of classifiers no index.
"""

from __future__ import annotations

import importlib

from data.errors import BundleError
from serving.core.bundle.card import KINDS
from serving.kinds.base import Kind

__all__ = ["CLASSIFICATION", "Kind", "kind_of"]

#: What a predictor answers with that doesn't say.
CLASSIFICATION = "classification"


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        BundleError: this release knows no such kind.
    """
    if name not in KINDS:
        raise BundleError(
            f"This release answers no models of the kind {name!r}.", hint=f"It knows {', '.join(KINDS)}."
        )
    found: Kind = importlib.import_module(f"serving.kinds.{name}").KIND
    return found
