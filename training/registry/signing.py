"""The ledger's key: Ed25519, made on first use, readable by its owner only.

``RETIDERM_LEDGER_KEY`` names a key file kept elsewhere (a mounted secret, another disk). Without it the key
lies beside the ledger, which shows accidents and edits by hand but not an intruder with the owner's rights.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import LedgerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "RETIDERM_LEDGER_KEY"


def key_path(folder: Path) -> Path:
    """Where the key of the ledger in ``folder`` is."""
    named = os.environ.get(KEY_VARIABLE)
    return Path(named).expanduser() if named else folder / "ledger.key"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key."""

    _private: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The raw public key in base64."""
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def sign(self, text: str) -> str:
        """The signature of a text, in base64."""
        return base64.b64encode(self._private.sign(text.encode())).decode()


def load_key(path: Path, *, create: bool = False) -> Key:
    """Read a key file (PEM, PKCS 8); with ``create`` make it where it is missing.

    Raises:
        LedgerError: it is missing or is not such a key.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if create and not path.exists():
        _create(path)
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise LedgerError(
            f"The ledger's key {path.name} is missing, so nothing can be added to the history.",
            hint=f"Restore it from a backup, or name it with {KEY_VARIABLE}; `retiderm models reconcile "
            "--new-ledger --why …` sets the old history aside and begins a new one.",
        ) from None
    except (ValueError, TypeError, OSError) as error:
        raise LedgerError(f"The ledger's key {path.name} can't be read: {error}.") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise LedgerError(f"The ledger's key {path.name} is not an Ed25519 key.")
    return Key(private)


def verify_signature(public: str, text: str, signature: str) -> bool:
    """Whether ``signature`` was made over ``text`` by the owner of a public key (base64)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(signature, validate=True), text.encode())
    except (InvalidSignature, ValueError, TypeError, binascii.Error):
        return False
    return True


def readable_by_others(path: Path) -> bool:
    """Whether anyone but the owner may read a key file; False where it is missing."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def _create(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes it 0600 from the first byte; the link fails where another process was quicker.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".key.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
