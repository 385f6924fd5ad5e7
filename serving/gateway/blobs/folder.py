"""Images in a folder."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data.errors import NotFound, StoreError, StoreFull
from data.files import fsync_dir, sha256_bytes, sha256_file, write_bytes

from .base import Stored, key_of, verified
from .signing import Grant, Signer

_NAME = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HOUR_S = 3600


class FolderBlobs:
    """Images in a folder: written under another name, flushed, renamed.

    ``base_url`` is the gateway's address as clients see it; signed addresses are below it.
    """

    def __init__(
        self, root: Path, signer: Signer, base_url: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self.signer = signer
        self._base = base_url.rstrip("/")
        self._clock = clock
        with _translated():
            # Other users of the machine don't look at patients' images.
            root.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def place(self) -> str:
        """As :class:`~.base.BlobStore`."""
        return f"folder {self.root}"

    def put(self, tenant: str, data: bytes, media_type: str) -> str:
        """As :class:`~.base.BlobStore`. What is there but damaged is written again."""
        sha256 = sha256_bytes(data)
        path = self.root / key_of(tenant, sha256)
        with _translated():
            if path.is_file() and path.stat().st_size == len(data) and sha256_file(path) == sha256:
                # Another upload may have renamed it just now, and its folder not be flushed yet.
                fsync_dir(path.parent)
                return sha256
            self._folder(path.parent)
            write_bytes(path, data)
        return sha256

    def get(self, tenant: str, sha256: str) -> bytes:
        """As :class:`~.base.BlobStore`."""
        path = self.root / key_of(tenant, sha256)
        with _translated():
            try:
                return verified(path.read_bytes(), sha256)
            except FileNotFoundError:
                raise NotFound("Image not found") from None

    def size(self, tenant: str, sha256: str) -> int | None:
        """As :class:`~.base.BlobStore`."""
        with _translated():
            try:
                return (self.root / key_of(tenant, sha256)).stat().st_size
            except FileNotFoundError:
                return None

    def delete(self, tenant: str, sha256: str) -> None:
        """As :class:`~.base.BlobStore`."""
        path = self.root / key_of(tenant, sha256)
        with _translated():
            path.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                fsync_dir(path.parent)

    def url(
        self, tenant: str, sha256: str, *, media_type: str, expires_s: int, filename: str | None = None
    ) -> str:
        """As :class:`~.base.BlobStore`. The gateway answers it by :meth:`opened`."""
        key_of(tenant, sha256)
        expires = int(self._clock()) + expires_s
        return self._base + self.signer.path(Grant(tenant, sha256, media_type, filename, expires))

    def granted(self, tenant: str, sha256: str, query: dict[str, str]) -> Grant:
        """What a signed address allows. ``NotAllowed`` where it is not one of ours, or has expired."""
        return self.signer.check(tenant, sha256, query, self._clock())

    def opened(self, tenant: str, sha256: str, query: dict[str, str]) -> tuple[bytes, Grant]:
        """The bytes behind a signed address.

        Raises:
            NotAllowed: it is not one of ours, or has expired.
            NotFound: the image was deleted.
        """
        grant = self.granted(tenant, sha256, query)
        return self.get(grant.tenant, grant.sha256), grant

    def listed(self, tenant: str) -> Iterator[Stored]:
        """As :class:`~.base.BlobStore`. Clears what killed writers left an hour ago or more on its way."""
        folder = self.root / key_of(tenant, "0" * 64).split("/")[0]
        with _translated():
            paths = sorted(folder.glob("*/*")) if folder.is_dir() else []
        for path in paths:
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            if _NAME.fullmatch(path.name):
                yield Stored(path.name, about.st_size, dt.datetime.fromtimestamp(about.st_mtime, dt.UTC))
            elif path.suffix == ".part" and self._clock() - about.st_mtime > _HOUR_S:
                with contextlib.suppress(OSError):
                    path.unlink()

    def check(self) -> None:
        """As :class:`~.base.BlobStore`: a few bytes are written and removed."""
        with _translated():
            probe = self.root / ".probe"
            write_bytes(probe, b"ok")
            probe.unlink(missing_ok=True)

    def _folder(self, folder: Path) -> None:
        """Make a folder and those above it, each flushed into its parent: a rename alone isn't enough."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for item in reversed(missing):
            item.mkdir(exist_ok=True)
            fsync_dir(item.parent)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(
                "No room is left for images.", hint="Nothing was kept; ask again later."
            ) from error
        raise StoreError(
            f"The image store can't be used: {error.strerror}.", hint="Nothing was kept; ask again later."
        ) from error
