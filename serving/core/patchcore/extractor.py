"""The frozen network that turns images into patch embeddings: ``extractor.onnx`` and ``extractor.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError, RequestError, ServingError
from data.files import read_json, sha256_file, write_json
from data.preprocess import Preprocessing
from data.provenance import cpu_quota
from serving.core.bundle.codec import from_plain, to_plain

CARD_FILE, MODEL_FILE = "extractor.json", "extractor.onnx"
INPUT, OUTPUT = "images", "patches"

#: Images that pass through the network together: more would only grow its activations.
CHUNK = 8

_HINT = "Build the extractor again: retiderm anomaly extractor."


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the network's weights come from; ``sha256`` is the file's, None where it is unknown."""

    source: str
    licence: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ExtractorCard:
    """What ``extractor.json`` says.

    ``input_size`` (H, W) in pixels, ``grid`` (Ht, Wt) patches of ``dim`` numbers. ``mean`` and ``std`` (of
    0–255 pixels scaled to 0–1) are told only: they are in the graph. ``digest`` is the hex SHA-256 of
    ``extractor.onnx``; ``preprocessing`` are the settings of ``data.preprocess.Preprocessing``, of which a
    ROI takes the resize alone.
    """

    name: str
    backbone: str
    layers: tuple[str, ...]
    input_size: tuple[int, int]
    grid: tuple[int, int]
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: Weights
    digest: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(*self.input_size, *self.grid, self.dim) < 1:
            raise BundleError(
                f"The extractor {self.name!r} has a size, a grid or a dimension below 1.", hint=_HINT
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, value: Any) -> ExtractorCard:
        """Read it strictly; ``BundleError`` names what is wrong."""
        return from_plain(cls, value, "extractor")


def write_card(folder: Path, card: ExtractorCard) -> None:
    """Write ``extractor.json`` atomically."""
    write_json(folder / CARD_FILE, card.to_dict())


class Extractor:
    """An opened extractor. ``embed`` may be called from several threads."""

    def __init__(self, session: Any, card: ExtractorCard, preprocessing: Preprocessing) -> None:
        """Use :meth:`open` or :meth:`from_files`."""
        self._session = session
        self.card = card
        self.preprocessing = preprocessing

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None, device: str = "cpu") -> Extractor:
        """Open a folder of ``extractor.json`` and ``extractor.onnx``.

        Raises:
            BundleError: a file is missing, altered or not what the card says.
        """
        if not (folder / CARD_FILE).is_file():
            raise BundleError(f"There is no {CARD_FILE} in the extractor's folder.", hint=_HINT)
        try:
            plain = read_json(folder / CARD_FILE)
        except ValueError as error:
            raise BundleError(f"{CARD_FILE} is no JSON ({error}).", hint=_HINT) from error
        card = ExtractorCard.from_dict(plain)
        return cls.from_files(folder / MODEL_FILE, card, threads=threads, device=device)

    @classmethod
    def from_files(
        cls, onnx: Path, card: ExtractorCard, threads: int | None = None, *, device: str = "cpu"
    ) -> Extractor:
        """Open a model file whose digest the card holds.

        ``threads`` defaults to this process's CPU quota. ``device`` is ``cpu`` or ``cuda``.

        Raises:
            BundleError: the file is missing, altered, or takes or gives something else.
            ServingError: ``device`` is ``cuda`` and this ONNX Runtime has no such provider.
        """
        if not onnx.is_file():
            raise BundleError(f"There is no {onnx.name} beside the extractor's card.", hint=_HINT)
        if sha256_file(onnx) != card.digest.removeprefix("sha256:"):
            raise BundleError(f"{onnx.name} is not the file that the extractor's card names.", hint=_HINT)
        preprocessing = _preprocessing(card)
        session = _session(onnx, threads or cpu_quota(), device)
        _check_signature(session, card)
        return cls(session, card, preprocessing)

    def prepare(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An RGB ROI [h, w, 3] stretched to the input size: uint8 [H, W, 3]."""
        return self.preprocessing(rgb)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Prepared RGB images, uint8 [N, H, W, 3], to patches, float32 [N, Ht, Wt, D], unit vectors.

        Raises:
            RequestError: the images have another shape or type.
            ServingError: a patch is not a finite unit vector.
        """
        height, width = self.card.input_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
            raise RequestError(
                f"The extractor takes uint8 [N, {height}, {width}, 3], "
                f"not {images.dtype} {list(images.shape)}.",
                hint="Prepare the ROI first: Extractor.prepare.",
            )
        patches = np.empty((len(images), *self.card.grid, self.card.dim), np.float32)
        for start in range(0, len(images), CHUNK):
            chunk = np.ascontiguousarray(images[start : start + CHUNK])
            patches[start : start + CHUNK] = self._session.run([OUTPUT], {INPUT: chunk})[0]
        lengths = np.einsum("nhwd,nhwd->nhw", patches, patches)
        if not (np.abs(lengths - 1) <= 1e-3).all():
            raise ServingError(
                "The extractor gave a patch that is no unit vector, so there is no answer.", hint=_HINT
            )
        return patches


def _preprocessing(card: ExtractorCard) -> Preprocessing:
    made = Preprocessing.from_dict({"size": list(card.input_size), **card.preprocessing})
    if made.size != card.input_size:
        raise BundleError(
            f"The extractor takes {card.input_size}, its preprocessing makes {made.size}.", hint=_HINT
        )
    return made


def _session(onnx: Path, threads: int, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # As serving/core/runtimes/onnx.py, which says why.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    if device == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ServingError(
                "This ONNX Runtime can't run on CUDA.",
                hint="Set DEVICE=cpu or auto, or install onnxruntime-gpu.",
            )
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = onnxruntime.InferenceSession(str(onnx), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own classes share no public base.
        raise BundleError(f"ONNX Runtime can't load {onnx.name} ({error}).", hint=_HINT) from error
    if session.get_providers()[0] != providers[0]:  # it has fallen back to the processor without an error
        raise ServingError(
            "ONNX Runtime could not start CUDA on this machine.",
            hint="Set DEVICE=cpu, or see that the GPU's driver and libraries are there.",
        )
    return session


def _check_signature(session: Any, card: ExtractorCard) -> None:
    inputs = {item.name: item.type for item in session.get_inputs()}
    outputs = {item.name: list(item.shape) for item in session.get_outputs()}
    if inputs != {INPUT: "tensor(uint8)"} or OUTPUT not in outputs:
        raise BundleError(
            f"The extractor's graph takes {inputs} and gives {sorted(outputs)}; it should take uint8 "
            f"{INPUT!r} and give {OUTPUT!r}.",
            hint=_HINT,
        )
    told = (*card.grid, card.dim)
    shape = outputs[OUTPUT][1:]
    if len(shape) != 3 or any(isinstance(n, int) and n != m for n, m in zip(shape, told, strict=True)):
        raise BundleError(
            f"The extractor's graph gives patches {outputs[OUTPUT]}, its card says {list(told)}.", hint=_HINT
        )
