"""Signed, expiring addresses for images in a folder, which has no server that would sign them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from data.errors import NotAllowed, StoreError, UsageError
from data.files import fsync_dir

_LEAST = 32


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good address allows: these bytes, sent as this type, until this second since 1970."""

    tenant: str
    sha256: str
    media_type: str
    filename: str | None
    expires: int


class Signer:
    """Signs addresses with an HMAC key, and checks them.

    The first key signs; the others are older ones, whose addresses stay good until they expire.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < _LEAST for key in keys):
            raise UsageError(
                f"A key for signed addresses has at least {_LEAST} bytes.",
                hint='Make one: python -c "import secrets; print(secrets.token_hex(32))"',
            )
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"Signer({len(self._keys)} keys)"

    def path(self, grant: Grant) -> str:
        """``/files/<tenant>/<sha256>?…``: the address below the server's own."""
        query = {"expires": str(grant.expires), "type": grant.media_type}
        if grant.filename is not None:
            query["name"] = grant.filename
        query["signature"] = self._sign(self._keys[0], grant)
        return f"/files/{quote(grant.tenant)}/{quote(grant.sha256)}?{urlencode(query)}"

    def check(self, tenant: str, sha256: str, query: Mapping[str, str], now: float) -> Grant:
        """What an address allows.

        Raises:
            NotAllowed: it was not signed by us, was altered, or has expired.
        """
        text = query.get("expires", "")
        # int() would also take other scripts' digits, signs and underscores.
        expires = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        grant = Grant(tenant, sha256, query.get("type", ""), query.get("name"), expires)
        given = query.get("signature", "").encode("utf-8", "replace")
        good = [hmac.compare_digest(self._sign(key, grant).encode(), given) for key in self._keys]
        if not any(good):
            raise NotAllowed("This address was not given by us.", hint="Ask for the scan or image again.")
        if now >= expires:
            raise NotAllowed("This address has expired.", hint="Ask for the scan or image again.")
        return grant

    @staticmethod
    def _sign(key: bytes, grant: Grant) -> str:
        # Each part after its length, so that no two grants read the same.
        parts = (grant.tenant, grant.sha256, grant.media_type, grant.filename or "", str(grant.expires))
        said = b"".join(
            len(raw).to_bytes(4, "big") + raw for raw in (part.encode("utf-8", "replace") for part in parts)
        )
        return hmac.new(key, b"retiderm-file-1" + said, hashlib.sha256).hexdigest()


def local_key(path: Path) -> bytes:
    """The key of this machine, made at the first call and readable by its owner only.

    Several servers of one store need one key: give it to them by ``GATEWAY_SIGNING_KEY`` instead.
    """
    for _ in range(2):
        try:
            key = bytes.fromhex(path.read_text().strip())
        except FileNotFoundError:
            _make_key(path)
            continue
        except (OSError, ValueError):
            raise StoreError(f"The key {path.name} can't be read.", hint="Restore or remove it.") from None
        return key
    raise StoreError(f"The key {path.name} could not be made.")


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
            stream.flush()
            os.fsync(stream.fileno())
        # A link and not a rename: of two processes at once, the first one's key stays.
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
        fsync_dir(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
