"""What every image store does."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from data.errors import IntegrityError, StoreError
from data.files import sha256_bytes

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENANT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that an image store has safely: what a row needs before it may be written.

    ``ensure`` looks for them again, and keeps them again where a clean-up took them meanwhile.
    """

    tenant: str
    sha256: str
    bytes: int
    ensure: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stored:
    """What an image store lists."""

    sha256: str
    bytes: int
    modified: dt.datetime


class BlobStore(Protocol):
    """A place for images, each under its content's SHA-256 within its tenant.

    All of it raises :class:`~data.errors.StoreError` when the place can't be reached, and
    :class:`~data.errors.StoreFull` when no room is left.
    """

    @property
    def place(self) -> str:
        """Where it is, in words that hold no secret."""
        ...

    def put(self, tenant: str, data: bytes, media_type: str) -> str:
        """Keep bytes; they survive a power cut when this returns. Kept already is no error.

        Returns:
            Their SHA-256.
        """
        ...

    def get(self, tenant: str, sha256: str) -> bytes:
        """The bytes.

        Raises:
            NotFound: they aren't there.
            IntegrityError: what is there isn't what was put.
        """
        ...

    def size(self, tenant: str, sha256: str) -> int | None:
        """How many bytes are there, or None where nothing is."""
        ...

    def delete(self, tenant: str, sha256: str) -> None:
        """Remove the bytes for good. Nothing there is no error."""
        ...

    def url(
        self, tenant: str, sha256: str, *, media_type: str, expires_s: int, filename: str | None = None
    ) -> str:
        """An address that gives the bytes to whoever has it, for ``expires_s`` seconds."""
        ...

    def listed(self, tenant: str) -> Iterator[Stored]:
        """Everything of a tenant."""
        ...

    def check(self) -> None:
        """Raise where the place can't be written to or reached."""
        ...


def keep(blobs: BlobStore, tenant: str, data: bytes, media_type: str) -> Kept:
    """Keep bytes before their row is written. Call it outside of a transaction: it may take a while."""
    sha256 = blobs.put(tenant, data, media_type)

    def ensure() -> None:
        if blobs.size(tenant, sha256) != len(data):
            blobs.put(tenant, data, media_type)

    return Kept(tenant, sha256, len(data), ensure)


def key_of(tenant: str, sha256: str) -> str:
    """``<tenant>/<two digits>/<sha256>``: where a content lies, in any image store.

    Raises:
        StoreError: either is not what it should be, so that no path can be made up from outside.
    """
    if _TENANT.fullmatch(tenant) is None or _SHA256.fullmatch(sha256) is None:
        raise StoreError("This is not the address of an image.")
    return f"{tenant}/{sha256[:2]}/{sha256}"


def verified(data: bytes, sha256: str) -> bytes:
    """``data``, where it is what was put.

    Raises:
        IntegrityError: it isn't.
    """
    if sha256_bytes(data) != sha256:
        raise IntegrityError(
            "A stored image is not the one that was stored.",
            hint="Restore it from a backup; sending the image again repairs it too.",
        )
    return data
