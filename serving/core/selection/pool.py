"""What a selection chooses from: cases without a label, and what the model said and saw of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.errors import DataError, UsageError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pool:
    """n cases that wait for a label. What a strategy doesn't need may be None.

    ``ids``: unique names. ``probabilities``: [n, C] of one head, or of several by their names; a strategy
    that looks at doubt takes the mean over heads. ``embeddings`` [n, D]. ``labelled`` [m, D]: embeddings of
    what has a label already. ``labelled_classes`` int [m] (by head, as the probabilities are): their classes,
    -1 where a head has none; without them a balance starts from nothing. ``groups``: what belongs together
    (a patient's or lesion's images), "" where an image stands alone. ``slices``: the part of the population
    (camera, site, tone of skin) that :class:`~serving.core.selection.balance.SliceBalanced` evens out.
    ``gradable``: False where the quality gate refused the image; such a case is never chosen, and its numbers
    may be NaN.

    Raises :class:`UsageError` for arrays that don't fit each other, :class:`DataError` for a gradable case
    whose numbers aren't finite.
    """

    ids: tuple[str, ...]
    probabilities: Floats | Mapping[str, Floats] | None = None
    embeddings: Floats | None = None
    labelled: Floats | None = None
    labelled_classes: NDArray[np.int64] | Mapping[str, NDArray[np.int64]] | None = None
    groups: tuple[str, ...] | None = None
    slices: tuple[str, ...] | None = None
    gradable: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if len(set(self.ids)) != n:
            raise UsageError("A pool names a case twice.", hint="Give every case once.")
        for name, words in (("groups", self.groups), ("slices", self.slices)):
            _require(words is None or len(words) == n, f"{name} must name one for each of the {n} cases")
        _require(self.gradable is None or np.shape(self.gradable) == (n,), f"gradable must be [{n}]")
        for name, values in self.heads().items():
            _require(
                values.ndim == 2 and len(values) == n, f"probabilities of {name or 'the head'}: [{n}, C]"
            )
            _require(values.shape[1] >= 2, f"{name or 'the head'} needs two classes at least")
        if self.embeddings is not None:
            _require(np.ndim(self.embeddings) == 2 and len(self.embeddings) == n, f"embeddings: [{n}, D]")
        if self.labelled is not None:
            same = self.embeddings is not None and self.labelled.shape[1:] == self.embeddings.shape[1:]
            _require(self.labelled.ndim == 2 and same, "labelled needs embeddings of the same length")
        for name, classes in self.known().items():
            _require(name in self.heads(), f"labelled_classes name a head {name!r} without probabilities")
            _require(np.ndim(classes) == 1, "labelled_classes: [m]")
            _require(self.labelled is None or len(classes) == len(self.labelled), "labelled_classes: [m]")
            _require(classes.max(initial=-1) < self.heads()[name].shape[1], "a labelled class is unknown")
        self._finite()

    def __len__(self) -> int:
        return len(self.ids)

    def heads(self) -> dict[str, Floats]:
        """Probabilities by head; one head alone is called ""."""
        if self.probabilities is None:
            return {}
        if isinstance(self.probabilities, Mapping):
            return dict(self.probabilities)
        return {"": self.probabilities}

    def known(self) -> dict[str, NDArray[np.int64]]:
        """The classes of what is labelled, by head."""
        if self.labelled_classes is None:
            return {}
        if isinstance(self.labelled_classes, Mapping):
            return dict(self.labelled_classes)
        return {"": self.labelled_classes}

    def allowed(self) -> NDArray[np.bool_]:
        """bool [n]: what may be chosen."""
        return np.ones(len(self), bool) if self.gradable is None else np.asarray(self.gradable, bool)

    def _finite(self) -> None:
        allowed = self.allowed()
        for values in (*self.heads().values(), self.embeddings):
            if values is not None and not np.isfinite(values[allowed]).all():
                wrong = self.ids[int(np.flatnonzero(allowed & ~np.isfinite(values).all(axis=1))[0])]
                raise DataError(
                    f"Case {wrong} is gradable, and has a number that isn't finite.",
                    hint="Leave out cases without an answer, or mark them as not gradable.",
                )
        if self.labelled is not None and not np.isfinite(self.labelled).all():
            raise DataError("A labelled embedding isn't finite.", hint="Leave it out.")

    def digest(self) -> str:
        """``sha256:<hex>`` of all that a selection rests on; the order of cases doesn't count."""
        order = np.argsort(np.array(self.ids, dtype=object)) if self.ids else np.zeros(0, np.int64)
        digest = hashlib.sha256()

        def put(name: str, value: ArrayLike | None, dtype: str = "<f4") -> None:
            if value is not None:
                array = np.ascontiguousarray(value, dtype=dtype)
                digest.update(f"{name} {array.shape}\0".encode() + array.tobytes())

        def words(name: str, values: tuple[str, ...] | None) -> None:
            if values is not None:
                digest.update(f"{name}\0".encode())
                for row in order:
                    text = values[row].encode()
                    digest.update(f"{len(text)}:".encode() + text)

        words("ids", self.ids)
        words("groups", self.groups)
        words("slices", self.slices)
        allowed = self.allowed()[order]
        put("gradable", allowed, "|u1")
        # What the gate refused plays no part, and its NaNs have no one form in bytes.
        kept = order[allowed]
        for name, values in sorted(self.heads().items()):
            put(f"probabilities {name}", values[kept])
        put("embeddings", None if self.embeddings is None else self.embeddings[kept])
        known = self.known()
        labelled = canonical(self.labelled, known)
        put("labelled", None if self.labelled is None else self.labelled[labelled])
        for name, classes in sorted(known.items()):
            put(f"classes {name}", classes[labelled], "<i8")
        return "sha256:" + digest.hexdigest()


def canonical(labelled: Floats | None, known: Mapping[str, NDArray[np.int64]]) -> Rows:
    """An order of what is labelled that doesn't depend on the order in which it was given."""
    columns: list[NDArray[Any]] = [known[name] for name in sorted(known)]
    if labelled is not None and len(labelled):
        rows = np.ascontiguousarray(labelled, "<f4")
        # A row's bytes as one value, so that a sort compares rows whole.
        columns.append(rows.view(np.dtype((np.void, rows.shape[1] * 4))).ravel())
    if not columns:
        return np.zeros(0 if labelled is None else len(labelled), np.int64)
    order = np.arange(len(columns[0]))
    for column in columns:
        order = order[np.argsort(column[order], kind="stable")]
    return order.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What strategies see: the gradable cases in the order of their ids, as arrays.

    ``heads``: probabilities float64 [n, C] each. ``known``: classes of what is labelled, a head each, -1 for
    none. ``embeddings`` and ``labelled`` float32, None where the pool has none.
    """

    heads: tuple[NDArray[np.float64], ...]
    embeddings: Floats | None
    labelled: Floats | None
    known: tuple[NDArray[np.int64], ...]
    slices: tuple[str, ...] | None
    size: int = field(kw_only=True)

    @classmethod
    def of(cls, pool: Pool) -> tuple[Candidates, Rows]:
        """The candidates of a pool, and which of its rows they are."""
        order = sorted(np.flatnonzero(pool.allowed()).tolist(), key=lambda row: pool.ids[row])
        rows = np.array(order, np.int64)
        heads, known = pool.heads(), pool.known()
        labelled = canonical(pool.labelled, known)
        return cls(
            heads=tuple(np.asarray(heads[name][rows], np.float64) for name in sorted(heads)),
            embeddings=None if pool.embeddings is None else np.asarray(pool.embeddings[rows], np.float32),
            labelled=None if pool.labelled is None else np.asarray(pool.labelled[labelled], np.float32),
            known=tuple(
                np.asarray(known[name][labelled], np.int64) if name in known else np.zeros(0, np.int64)
                for name in sorted(heads)
            ),
            slices=None if pool.slices is None else tuple(pool.slices[row] for row in order),
            size=len(rows),
        ), rows

    def __len__(self) -> int:
        return self.size

    def vectors(self) -> Floats:
        """The embeddings, which a strategy that needs them can rely on."""
        assert self.embeddings is not None
        return self.embeddings

    def take(self, rows: Rows) -> Candidates:
        """Some of the candidates, beside all that is labelled."""
        return Candidates(
            heads=tuple(values[rows] for values in self.heads),
            embeddings=None if self.embeddings is None else self.embeddings[rows],
            labelled=self.labelled,
            known=self.known,
            slices=None if self.slices is None else tuple(self.slices[row] for row in rows),
            size=len(rows),
        )

    def counting(self, rows: Rows) -> Candidates:
        """The same, with some rows' embeddings counted among what is labelled; their classes aren't known."""
        if self.embeddings is None:
            return self
        more = self.embeddings[rows]
        labelled = more if self.labelled is None else np.concatenate([self.labelled, more])
        return Candidates(self.heads, self.embeddings, labelled, self.known, self.slices, size=self.size)


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise UsageError(f"The pool's arrays don't fit: {what}.", hint="See docs/selection.md.")
