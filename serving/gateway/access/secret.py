"""How a token looks, and how it is recognised without being kept.

``rtk_<16 hex>_<43 characters>`` is an API key, ``rtb_…`` a bearer token. The middle names the row; the end is
256 random bits, of which the row holds the SHA-256. A slow hash protects secrets that can be guessed; these
can't be, and a request is not made slower by it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

PREFIXES = {"api_key": "rtk", "bearer": "rtb"}
_FORM = re.compile(r"(rtk|rtb)_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Secret:
    """A token's two halves. Its text is shown once and kept nowhere."""

    kind: str
    lookup: str
    hash: str


def make(kind: str) -> tuple[str, Secret]:
    """A new token: its text, and what is kept of it."""
    text = f"{PREFIXES[kind]}_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    found = parse(text)
    assert found is not None
    return text, found


def parse(text: str) -> Secret | None:
    """A token's halves; None where it isn't in our form."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    kind = next(kind for kind, prefix in PREFIXES.items() if prefix == match[1])
    return Secret(kind, match[2], digest(text))


def digest(text: str) -> str:
    """The SHA-256 of a whole token."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two digests are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())
