"""Both ways to search give one answer, and ``index.faiss`` is FAISS's own file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import IntegrityError, RequestError
from serving.core.patchcore import search
from serving.core.patchcore.search import ExactIndex, FaissIndex, build_index, has_faiss, open_index

Rows = NDArray[np.float32]


def unit(seed: int, n: int, dim: int) -> Rows:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("m", "dim", "q"), [(1, 3, 5), (50, 16, 7), (700, 384, 1024), (3, 1, 40)])
def test_faiss_and_numpy_agree_with_float64(m: int, dim: int, q: int) -> None:
    vectors, queries = unit(0, m, dim), unit(1, q, dim)
    queries[0] = vectors[-1]
    wide = np.stack([np.square(vectors.astype(np.float64) - one).sum(axis=1) for one in queries])
    for index in (ExactIndex(vectors), FaissIndex(vectors)):
        distances, nearest = index.search(queries)
        assert (distances.dtype, nearest.dtype) == (np.float32, np.int64)
        assert np.allclose(distances, wide.min(axis=1), atol=1e-6)
        assert np.allclose(wide[np.arange(q), nearest], wide.min(axis=1), atol=1e-6)
        assert distances[0] == 0.0
        assert index.shape == (m, dim)
    assert np.allclose(
        ExactIndex(vectors).search(queries)[0], FaissIndex(vectors).search(queries)[0], atol=1e-6
    )


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit(0, 40, 8), unit(1, 33, 8)
    whole = ExactIndex(vectors).search(queries)
    monkeypatch.setattr(search, "_BLOCK", 100)
    for one, other in zip(whole, ExactIndex(vectors).search(queries), strict=True):
        assert (one == other).all()


def test_the_file_is_faiss_s(tmp_path: Path) -> None:
    vectors = unit(0, 30, 12)
    theirs = faiss.IndexFlatL2(12)
    theirs.add(vectors)
    assert build_index(vectors) == faiss.serialize_index(theirs).tobytes()
    (tmp_path / "index.faiss").write_bytes(build_index(vectors))
    read = faiss.read_index(str(tmp_path / "index.faiss"))
    assert isinstance(read, faiss.IndexFlatL2)
    assert read.ntotal == 30
    faiss.write_index(theirs, str(tmp_path / "theirs.faiss"))
    for use in (True, False):
        index = open_index(tmp_path / "theirs.faiss", faiss=use)
        assert index.search(vectors)[1].tolist() == list(range(30))


def test_faiss_is_used_where_it_is() -> None:
    assert has_faiss()
    assert open_index(unit(0, 4, 4)).name.startswith("faiss 1.")
    assert open_index(unit(0, 4, 4), faiss=False).name.startswith("numpy 2.")


def test_without_faiss_numpy_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "has_faiss", lambda: False)
    assert isinstance(open_index(unit(0, 4, 4)), ExactIndex)


def test_no_queries() -> None:
    for use in (True, False):
        distances, nearest = open_index(unit(0, 4, 4), faiss=use).search(np.zeros((0, 4), np.float32))
        assert distances.shape == nearest.shape == (0,)


def other_type(data: bytes) -> bytes:
    index = faiss.IndexHNSWFlat(12, 4)
    index.add(unit(0, 30, 12))
    return faiss.serialize_index(index).tobytes()


def inner_product(data: bytes) -> bytes:
    index = faiss.IndexFlatIP(12)
    index.add(unit(0, 30, 12))
    return faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"IxXX" + data[4:],
        lambda data: data[:4] + struct.pack("<i", -12) + data[8:],
        lambda data: data[:8] + struct.pack("<q", 1 << 60) + data[16:],
        other_type,
        inner_product,
    ],
)
def test_what_is_no_whole_exact_index_is_refused(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(spoil(build_index(unit(0, 30, 12))))
    with pytest.raises(IntegrityError, match="search index"):
        open_index(path)


@pytest.mark.parametrize(
    "queries",
    [np.zeros((3, 5), np.float32), np.zeros(4, np.float32), np.zeros((3, 4)), np.zeros((2, 2, 4), "f4")],
)
def test_queries_of_another_shape_or_type_are_refused(queries: Rows) -> None:
    for use in (True, False):
        with pytest.raises(RequestError):
            open_index(unit(0, 4, 4), faiss=use).search(queries)


def test_vectors_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(IntegrityError):
        open_index(np.full((3, 4), np.nan, np.float32))
    with pytest.raises(IntegrityError):
        build_index(np.zeros((0, 4), np.float32))
