"""Regions that were asked about lately, ready to search, under a bound on their number and size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from serving.patchcore.locks import Locks

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    mark: Hashable
    value: V
    size: int


class Recent(Generic[V]):
    """The least recently used goes first, when there are more than ``count`` or more than ``size`` bytes.

    A value is good as long as ``mark``, which says what was on the disk when it was read, is still the same;
    so another process's fit is seen as this one's is. For several threads at once: two that miss the same key
    wait for one load.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._loading = Locks()

    def get(self, key: Hashable, mark: Hashable, load: Callable[[], tuple[V, int]]) -> V:
        """The value of ``key`` at ``mark``; ``load`` gives it and its bytes where it isn't here."""
        found = self._hit(key, mark)
        if found is not None:
            return found.value
        with self._loading.hold(key):
            found = self._hit(key, mark)  # another thread may just have loaded it
            if found is not None:
                return found.value
            value, size = load()
            self._put(key, _Entry(mark, value, size))
            return value

    def drop(self, key: Hashable) -> None:
        """Forget ``key``."""
        with self._lock:
            self._remove(key)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """The bytes of all that is held."""
        return self._bytes

    def _hit(self, key: Hashable, mark: Hashable) -> _Entry[V] | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.mark != mark:
                return None
            self._entries.move_to_end(key)
            return entry

    def _put(self, key: Hashable, entry: _Entry[V]) -> None:
        with self._lock:
            self._remove(key)
            # One that is larger than all may be is answered from, and not kept.
            if entry.size > self._size:
                return
            self._entries[key] = entry
            self._bytes += entry.size
            while len(self._entries) > self._count or self._bytes > self._size:
                self._remove(next(iter(self._entries)))

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
