"""What someone else trained: a file, what it is, and what its owner says of it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.errors import UsageError
from data.files import sha256_file

Kind = Literal["onnx", "torchscript", "state"]
Triple = tuple[float, float, float]

#: ImageNet's, what nearly every published classifier was trained with.
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A file of weights and its owner's word about it.

    ``classes`` is the order of the model's outputs, over all heads; without it the task's. ``mean`` and
    ``std`` are on the 0 to 1 scale (a model that takes 0 to 255: mean 0,0,0 and std 1/255 three times).
    ``output`` names an ONNX file's outputs, with a comma between those of several heads. ``probabilities``:
    they are no logits.
    ``trust`` allows the code in a TorchScript file to run.
    """

    weights: Path
    architecture: str | None = None
    classes: tuple[str, ...] | None = None
    licence: str = ""
    forbids: tuple[str, ...] = ()
    mean: Triple | None = None
    std: Triple | None = None
    output: str | None = None
    probabilities: bool = False
    trust: bool = False

    @property
    def sha256(self) -> str:
        """Of the file."""
        return sha256_file(self.weights)

    def kind(self) -> Kind:
        """What the file is, told from its bytes and not from its name alone.

        Raises:
            UsageError: it is missing or nothing that we can import.
        """
        path = self.weights
        if not path.is_file():
            raise UsageError(f"There is no file {path}.", hint="Give the path of the weights.")
        with path.open("rb") as stream:
            head = stream.read(16)
        if head[:4] == b"PK\x03\x04":
            return "torchscript" if _holds_code(path) else "state"
        if head[:1] == b"\x80" or path.suffix == ".safetensors" or _is_safetensors(head):
            return "state"
        if path.suffix == ".onnx":
            return "onnx"
        raise UsageError(
            f"{path.name} is no file of weights that we know.",
            hint="ONNX (.onnx), TorchScript, safetensors, or a state dict that torch saved.",
        )


def order_of(given: Sequence[str] | None, wanted: Sequence[str]) -> tuple[int, ...] | None:
    """For each of the task's classes its place among the model's outputs; None when they are the same.

    Raises:
        UsageError: they are not the same classes.
    """
    if given is None or tuple(given) == tuple(wanted):
        return None
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra or len(set(given)) != len(given) or len(set(wanted)) != len(wanted):
        what = [f"lacks {', '.join(missing)}"] if missing else []
        what += [f"has also {', '.join(extra)}"] if extra else []
        raise UsageError(
            f"--classes {' and '.join(what) or 'names a class twice'}.",
            hint=f"It must be an order of the task's classes: {', '.join(wanted)}.",
        )
    return tuple(given.index(name) for name in wanted)


def _holds_code(path: Path) -> bool:
    """A TorchScript archive has a ``code`` folder; a saved state dict has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in f"/{name}" for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then JSON."""
    return head[8:9] == b"{"
