"""Images by content: each stored once, under its SHA-256, and hard-linked into the datasets that hold it."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

EXTENSIONS = {"jpeg": "jpg", "png": "png", "bmp": "bmp", "webp": "webp", "tiff": "tif", "gif": "gif"}


@dataclass(frozen=True, slots=True)
class ImageStore:
    """``<root>/<sha256[:2]>/<sha256>.<ext>``; files are read-only, since every link shows the same bytes."""

    root: Path

    def put(self, sha256: str, extension: str, data: bytes) -> Path:
        """Store ``data`` unless it is there already, whole; a damaged file from a crash is written anew.

        Not flushed: call :func:`flush` once before publishing what refers to it.
        """
        path = self.root / relative_path(sha256, extension)
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            Path(name).chmod(0o444)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        return path


def relative_path(sha256: str, extension: str) -> str:
    """An image's place in the store, and under ``images/`` in a dataset."""
    return f"{sha256[:2]}/{sha256}.{extension}"


def link(source: Path, target: Path) -> None:
    """Hard-link ``source`` as ``target``; copy where a link can't be made (another filesystem)."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)


def flush(folder: Path) -> None:
    """Flush the whole filesystem that ``folder`` is on: one call instead of one for each image."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            os.sync()
    except AttributeError:  # no syncfs in this C library
        os.sync()
    finally:
        os.close(descriptor)
