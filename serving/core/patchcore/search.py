"""The distance of patches to the nearest vector of a memory: exact, by FAISS where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.errors import IntegrityError, RequestError
from data.provenance import cpu_quota
from serving.core.patchcore import flat_index

#: Products held at once by the search without FAISS: 16 MiB of float32.
_BLOCK = 1 << 22


class Index(Protocol):
    """An opened index over M vectors of D numbers. ``search`` may be called from several threads."""

    @property
    def name(self) -> str:
        """What searches, with its version: ``faiss 1.15.1`` or ``numpy 2.4.6``."""

    @property
    def shape(self) -> tuple[int, int]:
        """(M, D)."""

    def search(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """For queries [q, D] the squared L2 distances to their nearest vectors, float32 [q], and the vectors'
        indices, int64 [q].

        Raises:
            RequestError: the queries have another shape or type.
        """


class ExactIndex:
    """Exact search with NumPy: ‖q‖² + ‖v‖² − 2·q·v in blocks; the nearest one's distance is computed anew."""

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        """Keep float32 [M, D]; it must not be changed afterwards."""
        self._vectors = _checked(embeddings)
        self._halves = np.einsum("ij,ij->i", self._vectors, self._vectors) * np.float32(0.5)

    @property
    def name(self) -> str:
        """See ``Index.name``."""
        return f"numpy {np.__version__}"

    @property
    def shape(self) -> tuple[int, int]:
        """See ``Index.shape``."""
        return self._vectors.shape[0], self._vectors.shape[1]

    def search(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See ``Index.search``."""
        queries = _queries(queries, self.shape[1])
        nearest = np.empty(len(queries), np.int64)
        rows = max(1, _BLOCK // self.shape[0])
        for start in range(0, len(queries), rows):
            products = queries[start : start + rows] @ self._vectors.T
            products -= self._halves  # the nearest has the largest q·v − ‖v‖²/2
            nearest[start : start + rows] = products.argmax(axis=1)
        return _distances(queries, self._vectors, nearest), nearest


class FaissIndex:
    """Exact search with FAISS's ``IndexFlatL2``; the nearest one's distance is computed anew, as above.

    FAISS's own distances come from the same ‖q‖² + ‖v‖² − 2·q·v and miss by some 1e-7 (an exact copy isn't at
    zero); computed anew, both ways to search give the same answer to the last bit wherever they name the same
    vector.
    """

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        """Keep float32 [M, D]. Raises ``ImportError`` without FAISS."""
        import faiss

        self._vectors = _checked(embeddings)
        self._index: Any = faiss.IndexFlatL2(self._vectors.shape[1])
        self._index.add(self._vectors)
        self._version: str = faiss.__version__
        self._faiss: Any = faiss
        self._threads = cpu_quota()

    @property
    def name(self) -> str:
        """See ``Index.name``."""
        return f"faiss {self._version}"

    @property
    def shape(self) -> tuple[int, int]:
        """See ``Index.shape``."""
        return self._vectors.shape[0], self._vectors.shape[1]

    def search(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See ``Index.search``."""
        queries = _queries(queries, self.shape[1])
        if not len(queries):
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        self._limit()
        _, found = self._index.search(queries, 1)
        nearest = found[:, 0].astype(np.int64)
        return _distances(queries, self._vectors, nearest), nearest

    def _limit(self) -> None:
        """FAISS counts the host's cores, not the container's; its setting is the calling thread's own."""
        if self._faiss.omp_get_max_threads() > self._threads:
            self._faiss.omp_set_num_threads(self._threads)


def has_faiss() -> bool:
    """Whether FAISS is installed."""
    return importlib.util.find_spec("faiss") is not None


def build_index(embeddings: NDArray[np.float32]) -> bytes:
    """The bytes of ``index.faiss`` (FlatL2) for vectors [M, D]; FAISS isn't needed to write it."""
    return flat_index.pack(_checked(embeddings))


def open_index(source: Path | NDArray[np.float32], *, faiss: bool | None = None) -> Index:
    """Open ``index.faiss``, or index vectors [M, D]. ``faiss`` None: by FAISS where it is installed.

    Raises:
        IntegrityError: the file is not a whole FlatL2 index, or a vector is not finite.
    """
    vectors = flat_index.unpack(source.read_bytes()) if isinstance(source, Path) else source
    use = has_faiss() if faiss is None else faiss
    return FaissIndex(vectors) if use else ExactIndex(vectors)


def _distances(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], nearest: NDArray[np.int64]
) -> NDArray[np.float32]:
    difference = queries - vectors[nearest]
    distances: NDArray[np.float32] = np.einsum("ij,ij->i", difference, difference)
    return distances


def _checked(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or 0 in embeddings.shape:
        raise IntegrityError(
            f"A memory is float32 [M, D], not {embeddings.dtype} {list(embeddings.shape)}.",
            hint="Fit it again.",
        )
    if not np.isfinite(embeddings).all():
        raise IntegrityError("The memory holds a value that is not a finite number.", hint="Fit it again.")
    return np.ascontiguousarray(embeddings)


def _queries(queries: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    if queries.ndim != 2 or queries.shape[1] != dim or queries.dtype != np.float32:
        raise RequestError(
            f"The memory is searched for float32 [q, {dim}], not {queries.dtype} {list(queries.shape)}.",
            hint="Embed the image with the extractor that made the memory.",
        )
    return np.ascontiguousarray(queries)
