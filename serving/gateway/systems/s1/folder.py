"""Reading a file that a request names: in one folder, and nowhere else whatever the name says.

Every part of the way is opened by itself and without following links, so that nothing that is put there
between a look and the reading leads out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path, PurePosixPath

from data.errors import ImageTooLarge, NotAllowed, NotFound, RequestError

_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
#: Without waiting: opening a pipe would wait for somebody who writes to it.
_FILE = os.O_RDONLY | os.O_NONBLOCK | _NO_LINK
_OUTSIDE = "Only files in the folder that was set for it are read; no links, and no '..'."


def read_within(folder: Path, name: str, most: int) -> bytes:
    """The bytes of a file, named from ``folder`` or in full.

    Raises:
        RequestError: the name is empty, or can't be a file's.
        NotAllowed: it leads out of the folder, or over a link.
        NotFound: there is no such file.
        ImageTooLarge: it has more than ``most`` bytes.
    """
    parts = _parts(folder, name)
    with contextlib.ExitStack() as held:
        try:
            at = _open(held, folder.resolve(), os.O_RDONLY | os.O_DIRECTORY)
            for part in parts[:-1]:
                at = _open(held, part, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, at)
            file = _open(held, parts[-1], _FILE, at)
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise RequestError("This is no file.", hint="Name one image file.")
            if status.st_size > most:
                raise ImageTooLarge(f"The file has {status.st_size:,} bytes; the limit is {most:,}.")
            with os.fdopen(os.dup(file), "rb") as stream:
                # Never more than is allowed, even where it grows meanwhile.
                return stream.read(most)
        except OSError as error:
            raise _refusal(error, folder, parts) from None


def _parts(folder: Path, name: str) -> tuple[str, ...]:
    if not name or "\0" in name or len(name) > 4096:
        raise RequestError("file_path is a file's name.", hint="For instance file_path=selfie.jpg.")
    path = PurePosixPath(name)
    if path.is_absolute():
        for root in (folder, folder.resolve()):
            if path.is_relative_to(root):
                path = path.relative_to(root)
                break
        else:
            raise NotAllowed(_OUTSIDE)
    if ".." in path.parts:
        raise NotAllowed(_OUTSIDE)
    if not path.parts:
        raise RequestError("This is no file.", hint="Name one image file.")
    return path.parts


def _open(held: contextlib.ExitStack, name: str | Path, flags: int, at: int | None = None) -> int:
    found = os.open(name, flags, dir_fd=at)
    held.callback(os.close, found)
    return found


def _refusal(error: OSError, folder: Path, parts: tuple[str, ...]) -> Exception:
    # O_DIRECTORY with O_NOFOLLOW says ENOTDIR of a link too.
    if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and _link_on_the_way(folder, parts)):
        return NotAllowed(_OUTSIDE)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return NotFound("There is no such file.")
    return NotAllowed("This file can't be read.")


def _link_on_the_way(folder: Path, parts: tuple[str, ...]) -> bool:
    way = folder.resolve()
    for part in parts:
        way = way / part
        if way.is_symlink():
            return True
    return False
