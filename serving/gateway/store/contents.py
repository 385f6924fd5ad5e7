"""One at a time with a content's bytes: who looks for them, and who takes them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from data.errors import Overloaded

if TYPE_CHECKING:
    from serving.gateway.store.engine import Store

#: Longer than an image store that answers at all takes for a content.
_WAIT_S = 30.0


@contextlib.contextmanager
def alone_with(store: Store, tenant: str, sha256: str) -> Iterator[None]:
    """Nobody else looks for a content's bytes, or takes them, while the block lasts. Not in a transaction.

    Raises:
        Overloaded: somebody else does for so long that the image store hangs.
    """
    name = hashlib.sha256(f"{tenant} {sha256}".encode()).hexdigest()[:32]
    with store.alone(f"content-{name}", wait_s=_WAIT_S) as got:
        if not got:
            raise Overloaded("The image store takes long over this image.", hint="Ask again later.")
        yield
