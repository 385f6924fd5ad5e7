from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from serving.patchcore.embeddings import Embeddings


@pytest.mark.parametrize(("memory_bytes", "on_disk"), [(10_000, False), (100, True)])
def test_rows_come_back_as_they_were_added(
    memory_bytes: int, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    with Embeddings(20, 8, memory_bytes) as block:
        assert block.on_disk == on_disk
        assert list(tmp_path.iterdir()) == [], "what a kill would leave"
        for start in range(0, 20, 7):
            block.add(rows[start : start + 7])
            assert np.array_equal(block.rows, rows[: start + 7])


def test_a_disk_without_room_is_an_error_before_a_row_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # With holes in the file, the first row that finds no room would kill the process by a signal.
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Embeddings(20, 8, 100)
