"""The embeddings of a fit: one block, in memory while it is small, else in a file without a name."""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class Embeddings:
    """Float32 [n, D], allocated at once and filled a part at a time.

    Beyond ``memory_bytes`` the rows lie in a file of the temporary folder that was unlinked when it was made,
    so that a kill leaves nothing behind; the system writes them out and reads them in as it has memory. The
    file's room is taken at once: ``OSError`` where there is none.
    """

    def __init__(self, count: int, dim: int, memory_bytes: int) -> None:
        self._file: Any = None
        self._filled = 0
        size = count * dim * np.dtype(np.float32).itemsize
        if size <= memory_bytes:
            self._rows = np.empty((count, dim), np.float32)
        else:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
            try:
                # A page of a file with holes that finds no room when it is written kills the whole process.
                os.posix_fallocate(self._file.fileno(), 0, size)
            except OSError:
                self._file.close()
                raise
            self._rows = np.memmap(self._file, np.float32, "r+", shape=(count, dim))

    @property
    def on_disk(self) -> bool:
        """Whether the rows lie in a file."""
        return self._file is not None

    @property
    def rows(self) -> NDArray[np.float32]:
        """What was added, float32 [n, D]."""
        return self._rows[: self._filled]

    def add(self, rows: NDArray[np.float32]) -> None:
        """Put float32 [k, D] after what is there."""
        end = self._filled + len(rows)
        self._rows[self._filled : end] = rows
        self._filled = end

    def close(self) -> None:
        """Let the rows go."""
        self._rows = np.empty((0, self._rows.shape[1]), np.float32)
        self._filled = 0
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()
