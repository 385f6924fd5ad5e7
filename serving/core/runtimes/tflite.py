"""TFLite by LiteRT (``ai-edge-litert``) with XNNPACK: float, or int8 inside with the same uint8 input."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, ServingError
from data.provenance import cpu_quota, versions
from serving.core.bundle import Card
from serving.core.runtimes.base import check_images, check_outputs, require


class TfliteRuntime:
    """One interpreter. Its graph takes one image; a batch runs image by image, one caller at a time."""

    def __init__(self, path: Path, card: Card, precision: str, threads: int | None = None) -> None:
        """Load ``path``; ``threads`` defaults to the container's CPU quota.

        Raises:
            ServingError: LiteRT isn't installed.
            BundleError: LiteRT can't load the file, or it isn't the model that the card describes.
        """
        litert = require("ai_edge_litert.interpreter", "LiteRT")
        try:
            interpreter = litert.Interpreter(model_path=str(path), num_threads=threads or cpu_quota())
            interpreter.allocate_tensors()
            self._signature: Any = interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"LiteRT can't load {path.name} ({error}).",
                hint="Choose another precision, or export the bundle again from its run.",
            ) from error
        self.name = f"tflite {versions('ai-edge-litert').get('ai-edge-litert', '')}".strip()
        self.precision = precision
        self._card = card
        self._lock = threading.Lock()
        self._check_signature()

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Runtime.run``. Every output is computed, asked for or not."""
        names = check_outputs(outputs, self._card)
        pixels = check_images(images, self._card)
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        with self._lock:
            if self._signature is None:
                raise ServingError("The model was closed.", hint="Open the bundle again.")
            for i in range(len(pixels)):
                answer = self._signature(**{self._card.input.name: pixels[i : i + 1]})
                for name in names:
                    # Copied: the interpreter's next run writes into the same memory.
                    found[name].append(np.array(answer[name], dtype=np.float32))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def close(self) -> None:
        """Free the interpreter, after the call that is running."""
        with self._lock:
            self._signature = None

    def _check_signature(self) -> None:
        card = self._card
        inputs = {
            name: (item["dtype"].__name__, tuple(int(side) for side in item["shape"]))
            for name, item in self._signature.get_input_details().items()
        }
        outputs = {
            name: item["dtype"].__name__ for name, item in self._signature.get_output_details().items()
        }
        wanted = {card.input.name: ("uint8", (1, *card.input.size, 3))}
        if inputs != wanted or any(outputs.get(name) != "float32" for name in card.outputs):
            raise BundleError(
                f"The TFLite model takes {inputs} and gives {outputs}; the card says uint8 "
                f"{list(wanted[card.input.name][1])} and float32 {sorted(card.outputs)}.",
                hint="Export the bundle again from its run.",
            )
