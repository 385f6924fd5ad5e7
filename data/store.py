"""Images by content: each stored once, under its SHA-256, and hard-linked into the datasets that hold it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.files import replaced

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
        try:
            if path.read_bytes() == data:
                return path
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        part = f"{path}.{os.getpid()}.{threading.get_ident()}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o444), "wb") as stream:  # noqa: PTH123
                stream.write(data)
            os.replace(part, path)  # noqa: PTH105, pathlib costs a quarter of an ingest here
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return path


def relative_path(sha256: str, extension: str) -> str:
    """An image's place in the store, and under ``images/`` in a dataset."""
    return f"{sha256[:2]}/{sha256}.{extension}"


def link(source: Path, target: Path) -> None:
    """Hard-link ``source`` as ``target``; copy where a link can't be made (another filesystem)."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not source.exists():
            raise
        # Asking whether the folder is there would race with the thread that has just made it.
        target.parent.mkdir(parents=True, exist_ok=True)
        link(source, target)
    except OSError:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


@contextlib.contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a folder to fill; on a clean exit it is on disk and at ``path``, replacing one that was there.

    Like :func:`data.files.atomic_dir`, with one flush of the filesystem instead of one a file: for thousands
    of images that is seconds. See :func:`data.files.replaced` for what a crash leaves.
    """

    def settle(folder: Path) -> None:
        shutil.copymode(path.parent, folder)  # a temporary folder's 0700 is for its maker only
        flush(folder)

    with replaced(path, settle) as temporary:
        yield temporary


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
