"""The protocols between the servers and the kinds of model.

::

    bundle ► Kind.load ──► Engine ──answer──► Batch ──put──► tensors ──gRPC──► Form.read ──► Result an image
                                                └─results──► Result an image (offline)            │
                                   V1 document ◄──to_dict── Result      V2 tensors ◄──Form.write──┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.placement import Placement
from serving.core.bundle import Bundle, Card
from serving.features.columns import EMBEDDING, UNUSUAL
from serving.features.unusual import Embedded, Sight
from serving.source import Served


class Sink(Protocol):
    """Where tensors are put: ``kserve_ext.tensors.Outputs`` is one."""

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Numbers or booleans."""

    def texts(self, name: str, values: list[str]) -> None:
        """BYTES that are UTF-8 text."""


class Result(Protocol):
    """What a model says about one image."""

    @property
    def map(self) -> NDArray[np.float32] | None:
        """Where in the model's input it looked, float32 [h, w]; None where that wasn't asked for."""

    def maps(self) -> Mapping[str, NDArray[np.float32]]:
        """The same for each head by name, where a model has several; empty otherwise."""

    def placed(self, placement: Placement) -> Result:
        """The same with every place in pixels of the photograph instead of the model's input."""

    def overlay(self, pixels: NDArray[np.uint8]) -> bytes | None:
        """The map as colours over the model's input ``pixels`` [H, W, 3], a PNG; None without a map."""

    def to_dict(self) -> dict[str, Any]:
        """Its parts of the V1 document."""

    def counts(self) -> Iterable[tuple[str, str, bool]]:
        """What metrics count: head, label, and whether it is uncertain."""


class Form(Protocol):
    """How the answers of one model look: made of its bundle, or of what a predictor says of itself."""

    def parameters(self) -> dict[str, str]:
        """What a response says beside who answers; V2's parameters are plain, so lists are JSON text."""

    def describe(self) -> dict[str, Any]:
        """The same for the metadata, whose values may be anything."""

    def tensor_types(self) -> list[dict[str, Any]]:
        """The predictor's outputs, as V2 metadata."""

    def answer_types(self) -> list[dict[str, Any]]:
        """The transformer's outputs beside verdict, reasons and error, as V2 metadata."""

    def read(self, tensors: Mapping[str, Any]) -> tuple[Result, ...]:
        """The predictor's tensors (arrays; lists of bytes) as one result an image."""

    def write(self, sink: Sink, results: Sequence[Result | None]) -> None:
        """A batch as the transformer's outputs; where there is no result, NaN and empty text."""


class Batch(Protocol):
    """What a model says about N images."""

    def put(self, sink: Sink) -> None:
        """As the predictor's tensors, whose names and types ``Form.tensor_types`` lists.

        With features asked for also ``embedding`` and ``unusual``, where the model gives an embedding.
        """

    def results(self) -> tuple[Result, ...]:
        """One result an image, as ``Form.read`` makes them of the tensors."""


def put_embedded(sink: Sink, embedded: Embedded) -> None:
    """Put a batch's embeddings as the predictor's tensors; the same for every kind."""
    sink.array(EMBEDDING, embedded.embedding)
    sink.array(UNUSUAL, embedded.unusual)


class Engine(Protocol):
    """A model that has given its golden answers. ``answer`` may be called from several threads."""

    @property
    def served(self) -> Served:
        """Which bundle it is."""

    @property
    def card(self) -> Card:
        """Its card."""

    @property
    def precision(self) -> str:
        """The card's name for the precision that runs."""

    @property
    def form(self) -> Form:
        """How its answers look."""

    def describe(self) -> dict[str, Any]:
        """What runs it, for the metadata."""

    @property
    def sight(self) -> Sight:
        """What it can say of an embedding."""

    def answer(self, images: NDArray[np.uint8], *, explain: bool = False, features: bool = False) -> Batch:
        """Answer preprocessed images, uint8 [N, H, W, 3]; with ``explain`` maps too, where there are any.

        With ``features`` also embeddings and how unusual they are, where the model gives any.

        Raises:
            RequestError: the images have another shape or type.
            ServingError: the model gave something that is not a number.
        """


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model can show: its maps' (h, w), or None and why it has none; ``method`` names how."""

    map_shape: tuple[int, int] | None
    unavailable: str | None
    method: str


class Kind(Protocol):
    """One kind of model. ``locates``: its answers name places in the photograph."""

    @property
    def locates(self) -> bool:
        """Whether ``Result.placed`` does anything, so that it is worth finding out where the input lies."""

    def load(self, served: Served, *, precision: str, threads: int | None) -> Engine:
        """Open a bundle, verify every file, load it, and hold its answers against the golden ones.

        Raises:
            IntegrityError: the bundle was altered, is another one, or doesn't give its golden answers.
        """

    def form(self, bundle: Bundle) -> Form:
        """How a model's answers look, by its bundle. Nothing heavy is opened."""

    def form_of_response(self, parameters: Mapping[str, str]) -> Form:
        """The same by the parameters of a predictor's response."""

    def explanation(self, card: Card) -> Explanation:
        """What a model can show."""

    def embedding(self, card: Card) -> int | None:
        """How many numbers an image's embedding has; None where the model gives none."""
