"""One image's features, and the V2 tensors that carry a batch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

EMBEDDING, UNUSUAL, COLOUR, SHARPNESS, EXPOSURE = "embedding", "unusual", "colour", "sharpness", "exposure"

#: Channel means, then deviations.
COLOURS = 6


class Sink(Protocol):
    """Where tensors are put."""

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Numbers."""


@dataclass(frozen=True, slots=True)
class Features:
    """What is said of one image beside the answer; None for what can't be told of it.

    ``embedding`` float32 [D] as the model has it. ``unusual``: the share, 0 to 1, of usual images that lie
    nearer to the model's training images than this one, see ``unusual.py``. ``colour`` float32 [6]: the means
    of R, G and B, then their deviations, of the model's input, 0 to 255. ``sharpness`` and ``exposure`` as
    the quality gate measures them.
    """

    embedding: NDArray[np.float32] | None = None
    unusual: float | None = None
    colour: NDArray[np.float32] | None = None
    sharpness: float | None = None
    exposure: float | None = None


def colour(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The means of R, G and B of uint8 [H, W, 3], then their deviations: float32 [6], 0 to 255."""
    import cv2  # it adds whole numbers, where numpy would make floats of the picture first

    means, deviations = cv2.meanStdDev(pixels)
    return np.concatenate([means, deviations]).reshape(COLOURS).astype(np.float32)


def write(sink: Sink, features: Sequence[Features | None], dim: int | None) -> None:
    """A batch as tensors, NaN for what can't be told. No ``embedding`` where ``dim``, its length, is None."""
    there = [one or Features() for one in features]
    if dim is not None:
        sink.array(EMBEDDING, _rows([one.embedding for one in there], dim))
    sink.array(UNUSUAL, _column([one.unusual for one in there]))
    sink.array(COLOUR, _rows([one.colour for one in there], COLOURS))
    sink.array(SHARPNESS, _column([one.sharpness for one in there]))
    sink.array(EXPOSURE, _column([one.exposure for one in there]))


def read(outputs: Mapping[str, Any], i: int) -> Features | None:
    """The i-th image's, of arrays by name; None where they weren't asked for."""
    if UNUSUAL not in outputs or COLOUR not in outputs:
        return None
    embedding = outputs.get(EMBEDDING)
    return Features(
        None if embedding is None else _known(embedding[i]),
        _number(outputs[UNUSUAL][i]),
        _known(outputs[COLOUR][i]),
        _number(outputs[SHARPNESS][i]),
        _number(outputs[EXPOSURE][i]),
    )


def _rows(values: Sequence[NDArray[np.float32] | None], width: int) -> NDArray[np.float32]:
    nothing = np.full(width, np.nan, np.float32)
    return np.stack([nothing if one is None else one for one in values])


def _column(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if one is None else one for one in values], np.float32)


def _known(values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    return None if np.isnan(values).any() else values


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
