"""OpenVINO on the CPU: the same ONNX file as float32, as bfloat16 where the processor has it, or as int8."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, ServingError
from data.provenance import cpu_quota
from serving.core.bundle import Card
from serving.core.runtimes.base import check_images, check_outputs, require


class OpenVinoRuntime:
    """One compiled model, and an inference request a concurrent call."""

    def __init__(self, path: Path, card: Card, precision: str, threads: int | None = None) -> None:
        """Compile ``path``; ``threads`` defaults to the container's CPU quota.

        Raises:
            ServingError: OpenVINO isn't installed, or this processor can't calculate in the precision.
            BundleError: OpenVINO can't load the file, or it isn't the model that the card describes.
        """
        openvino = require("openvino", "OpenVINO")
        asked = "bf16" if precision == "bf16" else "f32"
        core = openvino.Core()
        if asked == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ServingError(
                "This processor has no bfloat16.", hint="Choose another precision, such as fp32 or int8."
            )
        options = {
            "INFERENCE_PRECISION_HINT": asked,
            "INFERENCE_NUM_THREADS": threads or cpu_quota(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned threads of two processes in one container would share a core and leave the other idle.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._model: Any = core.compile_model(core.read_model(str(path)), "CPU", options)
        except Exception as error:  # OpenVINO raises RuntimeError and classes of its own
            raise BundleError(
                f"OpenVINO can't load {path.name} ({error}).",
                hint="Choose another runtime, or export the bundle again from its run.",
            ) from error
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        self.precision = precision
        self._card = card
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._check_signature()

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Runtime.run``. OpenVINO computes every output of the graph, asked for or not."""
        names = check_outputs(outputs, self._card)
        pixels = check_images(images, self._card)
        if self._model is None:
            raise ServingError("The model was closed.", hint="Open the bundle again.")
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        try:
            request.infer({self._card.input.name: pixels})
            # Copied: the next call on this request writes into the same memory.
            return {name: np.array(request.get_tensor(name).data, dtype=np.float32) for name in names}
        finally:
            self._idle.put(request)

    def close(self) -> None:
        """Free the model; calls that are running finish first, since their requests hold it too."""
        self._model = None
        self._idle = queue.LifoQueue()

    def _check_signature(self) -> None:
        inputs = {item.any_name: item.element_type.get_type_name() for item in self._model.inputs}
        outputs = {item.any_name for item in self._model.outputs}
        if inputs != {self._card.input.name: "u8"} or not set(self._card.outputs) <= outputs:
            raise BundleError(
                f"The model takes {inputs} and gives {sorted(outputs)}; the card says uint8 "
                f"{self._card.input.name!r} and {sorted(self._card.outputs)}.",
                hint="Export the bundle again from its run.",
            )
