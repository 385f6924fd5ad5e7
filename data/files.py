"""Files that are either whole or not there: written under a temporary name, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_DAY_S = 24 * 3600
# From Linux's headers: paths are relative to the working folder; swap the two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def sha256_bytes(data: bytes) -> str:
    """The hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal bytes. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> str:
    """``sha256:<hex>`` of a value's canonical JSON."""
    return "sha256:" + sha256_bytes(canonical_json(value).encode())


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries, without which a rename can be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; on a clean exit flush it and rename it into place.

    Any exception removes the temporary file and leaves an older ``path`` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp gives 0600; what we publish is as readable as any other file of this user.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        fsync_dir(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on a clean exit flush every file and put it into place.

    As :func:`replaced`, which says what is at ``path`` when.
    """

    def settle(folder: Path) -> None:
        for item in sorted(folder.rglob("*")):
            if item.is_file():
                with item.open("rb") as stream:
                    os.fsync(stream.fileno())
            elif item.is_dir():
                fsync_dir(item)
        fsync_dir(folder)
        folder.chmod(0o777 & ~_umask())

    with replaced(path, settle) as temporary:
        yield temporary


@contextlib.contextmanager
def replaced(path: Path, settle: Callable[[Path], None]) -> Iterator[Path]:
    """Give a folder to fill; on a clean exit ``settle`` gets it onto the disk, and it becomes ``path``.

    A folder that was at ``path`` stays until the new one is whole; then the two change places in one step,
    where the filesystem can. Where it can't, a kill between two renames leaves nothing at ``path``, and the
    next call for ``path`` first puts the older folder back. A call also removes what killed ones left beside
    ``path`` a day ago or more, unless its owner lives.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _recover(path)
    temporary, lock = _owned(path, ".part")
    try:
        yield temporary
        settle(temporary)
        _put(temporary, path)
        fsync_dir(path.parent)
    finally:
        _remove(temporary)
        os.close(lock)


def _put(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; what was at ``path`` is then at ``temporary``, or gone."""
    if not path.exists():
        temporary.replace(path)
        return
    if _exchange(temporary, path):
        return
    retired, lock = _owned(path, ".old")
    try:
        path.replace(retired / path.name)
        temporary.replace(path)
    finally:
        _restore(retired, path)  # only where the second rename failed
        _remove(retired)
        os.close(lock)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step. False where the system or the filesystem can't."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # not Linux, or an old C library
        return False
    return bool(swap(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _owned(path: Path, suffix: str) -> tuple[Path, int]:
    """A new folder beside ``path`` and the lock that says that its owner lives; a kill lets the lock go."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another call took it for a leftover before it was locked
            continue
        with contextlib.suppress(OSError):  # no locks on this filesystem: then nothing is ever cleared there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def _recover(path: Path) -> None:
    """Put back the folder that a kill left aside, and remove what dead calls for ``path`` left beside it."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.(part|old)")
    for name in sorted(os.listdir(path.parent)):  # noqa: PTH208, names are all that is needed
        left = path.parent / name
        if ours.fullmatch(name) is None or left.is_symlink() or not left.is_dir():
            continue
        with contextlib.suppress(OSError):  # another call cleared it, or it is locked, or can't be
            # An unfinished folder may be someone else's who names as we do but doesn't lock: it gets a day.
            if left.suffix == ".part" and time.time() - left.stat().st_mtime < _DAY_S:
                continue
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left.suffix == ".old":
                    _restore(left, path)
                _remove(left)
            finally:
                os.close(lock)


def _restore(retired: Path, path: Path) -> None:
    older = retired / path.name
    if older.exists() and not path.exists():
        older.replace(path)
        fsync_dir(path.parent)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:  # a file or a link that the new folder took the place of
        place.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file atomically and durably."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically and durably. NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
