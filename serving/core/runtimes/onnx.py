"""ONNX Runtime on the CPU: the default runtime, and the one that golden answers are checked with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, ServingError
from data.provenance import cpu_quota
from serving.core.bundle import Card
from serving.core.runtimes.base import check_images, check_outputs


class OnnxRuntime:
    """One ONNX Runtime session. ONNX Runtime allows concurrent ``run`` calls on a session."""

    def __init__(self, path: Path, card: Card, precision: str, threads: int | None = None) -> None:
        """Load ``path``; ``threads`` defaults to the container's CPU quota.

        Raises:
            BundleError: ONNX Runtime can't load the file, or it isn't the model that the card describes.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Left alone, ONNX Runtime counts the host's cores, not the container's.
        options.intra_op_num_threads = threads or cpu_quota()
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Threads that go on spinning after a run take the cores from the next model's run and from the
        # transformer beside: two ResNet-50 in turn on 2 cores took 67 ms each with, 17 ms without.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own classes share no public base.
            raise BundleError(
                f"ONNX Runtime can't load {path.name} ({error}).",
                hint="Export the bundle again from its run.",
            ) from error
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self.precision = precision
        self._card = card
        self._run_options = onnxruntime.RunOptions()
        # Without this, ONNX Runtime computes every output of the graph and hands over those asked for.
        self._run_options.only_execute_path_to_fetches = True
        self._check_signature()

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("logits",)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Runtime.run``."""
        names = check_outputs(outputs, self._card)
        feed = {self._card.input.name: check_images(images, self._card)}
        if self._session is None:
            raise ServingError("The model was closed.", hint="Open the bundle again.")
        values = self._session.run(list(names), feed, self._run_options)
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Free the session; calls that are running finish first, since they hold it too."""
        self._session = None

    def _check_signature(self) -> None:
        inputs = {item.name: item.type for item in self._session.get_inputs()}
        outputs = {item.name for item in self._session.get_outputs()}
        if inputs != {self._card.input.name: "tensor(uint8)"} or not set(self._card.outputs) <= outputs:
            raise BundleError(
                f"The ONNX model takes {inputs} and gives {sorted(outputs)}; the card says uint8 "
                f"{self._card.input.name!r} and {sorted(self._card.outputs)}.",
                hint="Export the bundle again from its run.",
            )
