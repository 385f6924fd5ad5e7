"""The fixed chain of the skin and hair profile (contract S1): TFLite, then ONNX, then a development mock.

It is decided once, at the start, and runs on no other runtime whatever was tuned. Within TFLite the precision
is float, or int8 where the export approved it and ``retiderm tune`` found it faster on this kind of host. The
mock stands in for a missing model while a client is being developed: it must be switched on, says ``mock`` in
every answer, and knows nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import RequestError, RetidermError, ServingError
from serving.core.bundle import Bundle, HeadCard
from serving.core.runtimes.base import Runtime
from serving.core.runtimes.open import AUTO, open_runtime
from serving.core.runtimes.tuned import WORTH, read_tuned

ModelType = Literal["tflite", "onnx", "mock"]

#: A link of the chain, its runtime, and the precisions that it takes, the preferred first.
LINKS: tuple[tuple[ModelType, str, tuple[str, ...]], ...] = (
    ("tflite", "tflite", ("tflite", "tflite_int8")),
    ("onnx", "onnxruntime", ("fp32",)),
)

#: The tasks that answer on the chain and on nothing else, wherever they are served.
CHAINED = ("skin_profile",)

_LOG = logging.getLogger("retiderm.serving")


@dataclass(frozen=True, slots=True)
class Chain:
    """The runtime that the chain came to. ``passed_over`` says of each link before it why it wasn't that."""

    model_type: ModelType
    runtime: Runtime
    passed_over: Mapping[str, str]


class MockRuntime:
    """No model: every class of a head is as likely as any other, whatever the image shows."""

    name = "mock"
    precision = "none"

    def __init__(self, heads: Sequence[HeadCard]) -> None:
        self._classes = sum(len(head.classes) for head in heads)

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]:
        """Equal logits [N, ΣC]; there is no map and no embedding."""
        if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
            raise RequestError("The mock takes uint8 [N, H, W, 3] with N of at least 1.")
        if set(outputs) != {"logits"}:
            raise RequestError("The mock gives logits alone.", hint="Serve a model to have an explanation.")
        return {"logits": np.zeros((len(images), self._classes), np.float32)}

    def close(self) -> None:
        """Nothing to free."""


def check_precision(task: str, precision: str) -> None:
    """Refuse to serve a task beside its chain. ``auto`` is the chain's own choice.

    Raises:
        ServingError: the task answers on the chain, and that precision is none of its links'.
    """
    links = [name for _, _, names in LINKS for name in names]
    if task in CHAINED and precision not in (AUTO, *links):
        raise ServingError(
            f"The task {task!r} is served by TFLite or ONNX Runtime only, not as {precision!r}.",
            hint=f"Leave --precision at auto, or name one of: {', '.join(links)}.",
        )


def open_chain(
    bundle: Bundle | None,
    *,
    heads: Sequence[HeadCard] = (),
    mock: bool = False,
    threads: int | None = None,
) -> Chain:
    """Try the links in order and keep the first that gives the bundle's golden answers.

    ``bundle`` None means that there is no model; ``heads`` then say what the mock pretends to know. ``mock``
    switches it on, which only a development setting may do.

    Raises:
        ServingError: no link can be had and the mock is off.
    """
    passed: dict[str, str] = {}
    for link, runtime, names in LINKS:
        if bundle is None:
            passed[link] = "there is no model"
            continue
        has = [name for name in names if name in bundle.card.precisions]
        has = [name for name in has if bundle.card.precisions[name].approved]
        passed[link] = f"the bundle has no approved {' or '.join(names)}"
        for name in _faster_first(bundle, runtime, has):
            try:
                opened = open_runtime(bundle, name, threads, runtime=runtime)
            except RetidermError as error:
                passed[link] = error.message
                continue
            del passed[link]
            return Chain(link, opened, passed)
        _LOG.warning("%s passed over: %s", link, passed[link])
    if not mock:
        said = "; ".join(f"{link}: {why}" for link, why in passed.items())
        raise ServingError(
            f"No runtime of the chain can be had ({said}).",
            hint="Promote a model that was exported with `export: {precisions: [fp32, tflite]}`.",
        )
    _LOG.warning("serving the mock: its answers mean nothing")
    return Chain("mock", MockRuntime(heads or (bundle.card.heads if bundle else ())), passed)


def _faster_first(bundle: Bundle, runtime: str, names: Sequence[str]) -> list[str]:
    """A link's precisions in the order to try them in: as preferred, unless tuning says otherwise."""
    tuned = read_tuned(bundle.digest) if len(names) > 1 else None
    if tuned is None:
        return list(names)
    times = {
        row.precision: row.median_ms
        for row in tuned.table
        if row.runtime == runtime and row.passed and row.median_ms is not None
    }
    if not times.keys() >= set(names):
        return list(names)
    # The preferred one stays first unless another is faster by more than the clock's noise.
    return sorted(names, key=lambda name: times[name] * (WORTH if name == names[0] else 1))
