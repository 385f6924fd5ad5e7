"""What is freed without the collector's help."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator


class Large:
    """Stands for the bytes of a request."""


@contextlib.contextmanager
def freed_at_once() -> Iterator[Large]:
    """Gives something large; when the block ends, nothing may hold it any more, circles included."""
    gc.collect()
    gc.disable()
    try:
        large = Large()
        left = weakref.ref(large)
        yield large
        del large
        assert left() is None, "a circle holds it"
    finally:
        gc.enable()
