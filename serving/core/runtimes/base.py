"""What a runtime is: the only thing that the rest of serving knows about what runs a model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError, ServingError
from serving.core.bundle import Card

OUTPUTS = ("logits", "cam", "embedding")


class Runtime(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What runs the model, with its version: ``onnxruntime 1.31.1``."""

    @property
    def precision(self) -> str:
        """The card's name for the precision: ``fp32``."""

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]:
        """Run ``uint8 [N, H, W, 3]`` (RGB, preprocessed) and give float32 outputs by name.

        ``logits`` [N, ΣC], ``cam`` [N, ΣC, h, w], ``embedding`` [N, D]; heads lie in the card's order. Only
        what is asked for is computed.

        Raises:
            RequestError: the images have another shape or type, or the model has no such output.
        """

    def close(self) -> None:
        """Free the model. ``run`` must not be called afterwards."""


def check_images(images: NDArray[np.uint8], card: Card) -> NDArray[np.uint8]:
    """The images, contiguous, if they fit the card; ``RequestError`` says what was expected."""
    height, width = card.input.size
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:] != (height, width, 3)
        or not len(images)
    ):
        raise RequestError(
            f"The model {card.task!r} takes uint8 [N, {height}, {width}, 3] with N of at least 1, "
            f"not {images.dtype} {list(images.shape)}.",
            hint="Preprocess the image as the card says: Preprocessing.from_dict(card.preprocessing).",
        )
    return np.ascontiguousarray(images)


def check_outputs(outputs: Sequence[str], card: Card) -> tuple[str, ...]:
    """The outputs asked for, if the model has them."""
    for name in outputs:
        if name not in card.outputs:
            reason = f" {card.explanation.reason}" if name == "cam" and card.explanation.reason else ""
            raise RequestError(
                f"The model {card.task!r} has no output {name!r}.{reason}",
                hint=f"It has: {', '.join(card.outputs)}.",
            )
    return tuple(outputs)


def require(module: str, what: str) -> Any:
    """An optional runtime's module; ``ServingError`` says which extra it comes with.

    A package whose own library is missing or of another system counts as not installed, with its reason.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ServingError(
            f"{what} can't be used here: {error}.",
            hint="Install the extra: pip install 'retiderm[edge]'; or serve fp32, which needs none.",
        ) from error
