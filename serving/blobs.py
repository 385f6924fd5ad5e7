"""V2's raw form of a BYTES tensor: each element after its length, four bytes, little-endian."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from data.errors import RequestError


def pack(elements: Sequence[bytes]) -> bytes:
    """The raw data of a BYTES tensor."""
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))


def unpack(raw: bytes, name: str, most: int | None = None) -> list[bytes]:
    """The elements of a BYTES tensor, of which there may be ``most``: nothing is read beyond.

    Raises:
        RequestError: the data ends inside an element, or goes on after the last.
    """
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        if most is not None and len(elements) == most:
            raise RequestError(f"The raw data of {name!r} goes on after its last element, of {most}.")
        if at + 4 > len(raw):
            raise RequestError(f"The raw data of {name!r} ends inside an element's length.")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise RequestError(f"The raw data of {name!r} ends inside an element of {size} bytes.")
        elements.append(bytes(raw[at : at + size]))
        at += size
    return elements
