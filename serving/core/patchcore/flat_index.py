"""FAISS's file of an exact L2 index (``IndexFlatL2``), read and written without FAISS.

The format, as FAISS 1.15 writes it: ``IxF2``, d (int32), n (int64), twice 2²⁰ (int64), trained (uint8),
metric (int32, 1 = L2), then the count of floats (uint64) and the floats, all little-endian; a test compares
the bytes. Reading it ourselves means that bytes from a shared folder never reach FAISS's own parser, which
trusts them.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from data.errors import IntegrityError

_HEADER = struct.Struct("<4siqqqBiQ")
_MAGIC, _FILLER, _L2 = b"IxF2", 1 << 20, 1


def pack(embeddings: NDArray[np.float32]) -> bytes:
    """The bytes of ``index.faiss`` for vectors [M, D]: those of ``faiss.serialize_index(IndexFlatL2)``."""
    vectors = np.ascontiguousarray(embeddings, "<f4")
    count, dim = vectors.shape
    header = _HEADER.pack(_MAGIC, dim, count, _FILLER, _FILLER, 1, _L2, count * dim)
    return header + vectors.tobytes()


def unpack(data: bytes) -> NDArray[np.float32]:
    """The vectors [M, D] in the bytes of ``index.faiss``.

    Raises:
        IntegrityError: it is not a whole ``IndexFlatL2``.
    """
    if len(data) < _HEADER.size:
        raise _wrong("it ends too soon")
    magic, dim, count, _, _, trained, metric, floats = _HEADER.unpack_from(data)
    if magic != _MAGIC or metric != _L2 or not trained:
        raise _wrong(f"it is no exact L2 index (it begins with {magic!r})")
    if dim < 1 or count < 1 or floats != dim * count or len(data) != _HEADER.size + 4 * floats:
        raise _wrong(f"{count} vectors of {dim} don't fill its {len(data)} bytes")
    return np.frombuffer(data, "<f4", offset=_HEADER.size).reshape(count, dim).astype(np.float32)


def _wrong(what: str) -> IntegrityError:
    return IntegrityError(
        f"The search index can't be used: {what}.",
        hint="Fit the ROI again with /fit_ok, or export the bundle again.",
    )
