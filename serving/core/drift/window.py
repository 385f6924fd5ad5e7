"""Recent answers, as drift is judged on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """n images in the order in which they came, whether they were answered or refused.

    A row that a measure doesn't have is NaN: a refused image has quality scores and perhaps colours, but no
    embedding and no probabilities. Arrays that nobody collected are left out (None).

    - ``gradable`` bool [n]: whether the quality gate let the image through.
    - ``sharpness``, ``exposure`` [n]: the quality gate's scores.
    - ``colour`` [n, 6]: channel means, then deviations, of the preprocessed pixels (0 to 255).
    - ``embedding`` [n, D]: the model's.
    - ``probabilities``: head name to [n, C], calibrated, as they were served.
    - ``score`` [n]: an anomaly model's score.
    - ``truth``: head name to int [n], the true class's place, -1 where no person has said. Only labels of
      images that were chosen by chance belong here: those of doubtful cases say nothing about all cases.

    With probabilities and truth alone it is a window of labels, in the order in which labels came. Its images
    are those of other windows, so what they look like and how they were answered isn't judged once more.

    Raises:
        UsageError: an array has another length, shape or type than it should.
    """

    images: int
    gradable: NDArray[np.bool_] | None = None
    sharpness: Floats | None = None
    exposure: Floats | None = None
    colour: Floats | None = None
    embedding: Floats | None = None
    probabilities: Mapping[str, Floats] = field(default_factory=dict)
    score: Floats | None = None
    truth: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if self.gradable is not None:
            put("gradable", _array("gradable", self.gradable, self.images, 1, np.bool_))
        for name, axes in (("sharpness", 1), ("exposure", 1), ("colour", 2), ("embedding", 2), ("score", 1)):
            value = getattr(self, name)
            if value is not None:
                put(name, _array(name, value, self.images, axes, np.float64))
        if self.colour is not None and self.colour.shape[1] != 6:
            raise _wrong("colour", self.colour.shape, f"({self.images}, 6)")
        put("probabilities", {
            head: _array(f"{head}.probabilities", value, self.images, 2, np.float64)
            for head, value in self.probabilities.items()
        })  # fmt: skip
        put("truth", {
            head: _array(f"{head}.truth", value, self.images, 1, np.intp)
            for head, value in self.truth.items()
        })  # fmt: skip

    @property
    def of_labels(self) -> bool:
        """Whether it holds answers with their truth and nothing else: only the truth is judged then."""
        others = (self.gradable, self.sharpness, self.exposure, self.colour, self.embedding, self.score)
        return bool(self.truth) and all(value is None for value in others)

    def first(self, count: int) -> Window:
        """The ``count`` images that came first."""
        return self.rows(slice(0, count))

    def rows(self, chosen: slice | NDArray[np.intp]) -> Window:
        """The chosen images, in that order."""

        def cut(value: Any) -> Any:
            return None if value is None else value[chosen]

        return Window(
            images=len(np.arange(self.images)[chosen]),
            gradable=cut(self.gradable),
            sharpness=cut(self.sharpness),
            exposure=cut(self.exposure),
            colour=cut(self.colour),
            embedding=cut(self.embedding),
            probabilities={head: cut(value) for head, value in self.probabilities.items()},
            score=cut(self.score),
            truth={head: cut(value) for head, value in self.truth.items()},
        )


def _array(name: str, value: Any, images: int, axes: int, kind: type) -> NDArray[Any]:
    found = np.asarray(value)
    if found.ndim != axes or len(found) != images:
        raise _wrong(name, found.shape, f"{axes} axes and {images} rows")
    if not (np.issubdtype(found.dtype, np.number) or found.dtype == np.bool_):
        raise UsageError(f"The window's {name} are {found.dtype}, not numbers.", hint=_HINT)
    if kind is np.intp and not np.issubdtype(found.dtype, np.integer):
        raise UsageError(f"The window's {name} are {found.dtype}, not whole numbers.", hint=_HINT)
    return np.asarray(found, dtype=kind)


_HINT = "docs/drift.md lists a window's arrays."


def _wrong(name: str, shape: tuple[int, ...], wanted: str) -> UsageError:
    return UsageError(f"The window's {name} has the shape {list(shape)}, not {wanted}.", hint=_HINT)
