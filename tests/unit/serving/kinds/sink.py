"""What a predictor sends, as the transformer reads it, without the wire between."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


class Tensors(dict[str, Any]):
    """A ``Sink`` that is the dictionary ``Form.read`` takes."""

    def array(self, name: str, values: NDArray[Any]) -> None:
        self[name] = values

    def texts(self, name: str, values: list[str]) -> None:
        self[name] = [value.encode() for value in values]
