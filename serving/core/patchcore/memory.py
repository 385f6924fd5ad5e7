"""A memory, the coreset of OK patches that new ones are compared with, and ``memory.npz`` that holds it."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import IntegrityError, RequestError
from data.files import write_bytes

if TYPE_CHECKING:
    from serving.core.patchcore.extractor import ExtractorCard

#: Raise it when a reader of the older format can no longer read what is written.
FORMAT = 2
DISTANCE = "squared_l2"

# Older versions stored lengths as float32 made them; a vector farther off is no unit vector.
_UNIT_TOLERANCE = 1e-3
# What a damaged archive makes numpy and zipfile raise; RuntimeError where it seems to be encrypted.
_DAMAGE = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
# What older versions called the extractor.
_OLD_NAMES = {
    "format": ("format_version",),
    "extractor": ("model", "model_name"),
    "coreset_rate_applied": ("applied_rate",),
}


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """What ``memory.npz`` says about itself. None: its writer didn't say.

    - ``extractor``: the extractor's name; ``extractor_digest``: the SHA-256 of its ONNX file;
      ``input_size``: (H, W) of the images it saw.
    - ``coreset_rate`` was asked for, ``coreset_rate_applied`` is M / ``n_embeddings``; ``count_images`` and
      ``n_embeddings`` count all that the memory was ever fitted with.
    - ``radius``: no embedding it was fitted with is farther than this from the memory (squared L2). Exact
      after a fit; after an incremental fit an upper bound, and ``radius_exact`` False.
    - ``generation``: another for every fit.
    """

    format: int = FORMAT
    extractor: str | None = None
    extractor_digest: str | None = None
    input_size: tuple[int, int] | None = None
    coreset_rate: float | None = None
    coreset_rate_applied: float | None = None
    count_images: int | None = None
    n_embeddings: int | None = None
    radius: float | None = None
    radius_exact: bool = True
    seed: int | None = None
    created_at: str | None = None
    distance: str | None = None
    generation: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types; ``input_size`` as [H, W]."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        plain["input_size"] = None if self.input_size is None else list(self.input_size)
        plain["extra"] = dict(self.extra)
        return plain

    @classmethod
    def from_dict(cls, value: Any) -> MemoryInfo:
        """Read metadata, older versions' included: unknown keys are left alone, missing ones are None.

        Older versions may hold anything under a name of ours; it is None unless a memory is judged by it.

        Raises:
            IntegrityError: a key holds another type, or the format or the distance is unknown here.
        """
        if not isinstance(value, Mapping):
            raise _wrong("its metadata is not an object")
        given: dict[str, Any] = {"format": 1}
        for item in fields(cls):
            names = (item.name, *_OLD_NAMES.get(item.name, ()))
            found = next((value[name] for name in names if value.get(name) is not None), None)
            if found is None:
                continue
            try:
                given[item.name] = _read(item.name, found)
            except TypeError as error:
                if item.name in _JUDGED or value.get("generation") is not None:
                    raise _wrong(f"its metadata says {item.name} is {found!r}") from error
        made = cls(**given)
        if made.format > FORMAT:
            raise _wrong(f"its format is {made.format}, this version reads up to {FORMAT}")
        if made.distance not in (None, DISTANCE):
            raise _wrong(f"its distance is {made.distance!r}")
        return made


@dataclass(frozen=True, slots=True)
class Memory:
    """``emb`` float32 [M, D], unit vectors; ``token_h`` × ``token_w`` patches an image; ``info`` or None."""

    emb: NDArray[np.float32]
    token_h: int
    token_w: int
    info: MemoryInfo | None = None

    def __post_init__(self) -> None:
        emb = self.emb
        if emb.ndim != 2 or emb.dtype != np.float32 or 0 in emb.shape:
            raise _wrong(f"its embeddings are {emb.dtype} {list(emb.shape)}, not float32 [M, D]")
        if not np.isfinite(emb).all():
            raise _wrong("an embedding is not finite")
        lengths = np.sqrt(np.einsum("ij,ij->i", emb, emb))
        if np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
            raise _wrong("an embedding is no unit vector")
        if self.token_h < 1 or self.token_w < 1:
            raise _wrong(f"its grid is {self.token_h}×{self.token_w}")

    @property
    def grid(self) -> tuple[int, int]:
        """(Ht, Wt)."""
        return self.token_h, self.token_w

    def require(self, extractor: ExtractorCard) -> None:
        """Make sure that this extractor's patches may be compared with the memory.

        A memory that names its extractor must name this one: by the file's digest where it has one, else by
        name or backbone and input size. One that doesn't is taken when D and grid fit.

        Raises:
            RequestError: the memory is another extractor's.
        """
        info = self.info or MemoryInfo()
        if self.emb.shape[1] != extractor.dim or self.grid != extractor.grid:
            raise _another(
                f"{self.token_h}×{self.token_w} patches of {self.emb.shape[1]} numbers",
                f"{extractor.grid[0]}×{extractor.grid[1]} of {extractor.dim}",
            )
        if info.extractor_digest is not None:
            if info.extractor_digest != extractor.digest:
                raise _another(info.extractor or "another file", extractor.name)
        elif info.extractor is not None and info.extractor not in (extractor.name, extractor.backbone):
            raise _another(info.extractor, extractor.name)
        if info.input_size is not None and info.input_size != extractor.input_size:
            raise _another(f"an input of {info.input_size}", f"{extractor.input_size}")


def unit(embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows [n, D] scaled to length 1, float32; a row of zeros is refused with ``IntegrityError``."""
    values = np.asarray(embeddings, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))[:, None]
    if not np.isfinite(lengths).all() or (lengths <= 0).any():
        raise IntegrityError(
            "A patch embedding is zero or not finite, so it has no direction.",
            hint="Check the extractor that made it.",
        )
    scaled: NDArray[np.float32] = (values / lengths).astype(np.float32)
    return scaled


def now() -> str:
    """The time in UTC, ISO 8601, to the second: what ``created_at`` holds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def pack_memory(memory: Memory) -> bytes:
    """The bytes of ``memory.npz``: ``emb``, ``token_h``, ``token_w`` and, if there is info, ``metadata``."""
    arrays: dict[str, Any] = {
        "emb": memory.emb,
        "token_h": np.int64(memory.token_h),
        "token_w": np.int64(memory.token_w),
    }
    if memory.info is not None:
        arrays["metadata"] = np.array(json.dumps(memory.info.to_dict(), sort_keys=True, allow_nan=False))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write_memory(path: Path, memory: Memory) -> None:
    """Write ``memory.npz`` atomically."""
    write_bytes(path, pack_memory(memory))


def read_memory(source: Path | bytes) -> Memory:
    """Read ``memory.npz``, from its path or its bytes, of this version or an older one.

    Raises:
        IntegrityError: it is damaged, of a later format, or holds what no memory holds. Nothing is unpickled.
        FileNotFoundError: there is no such file.
    """
    data = source.read_bytes() if isinstance(source, Path) else source
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            emb, height, width = stored["emb"], _whole(stored["token_h"]), _whole(stored["token_w"])
            metadata = _text(stored["metadata"]) if "metadata" in stored.files else None
    except _DAMAGE as error:
        raise _wrong("it can't be read as plain arrays") from error
    if emb.dtype not in (np.float16, np.float32, np.float64):
        raise _wrong(f"its embeddings are {emb.dtype}")
    info = None
    if metadata:
        try:
            info = MemoryInfo.from_dict(json.loads(metadata))
        except (json.JSONDecodeError, RecursionError) as error:
            raise _wrong("its metadata is no JSON") from error
    return Memory(np.ascontiguousarray(emb, np.float32), height, width, info)


def _whole(value: NDArray[Any]) -> int:
    if value.size != 1 or not np.issubdtype(value.dtype, np.number):
        raise ValueError("the grid is not a number")
    number = float(value.reshape(()))
    if not number.is_integer() or abs(number) > 1 << 20:
        raise ValueError("the grid is not a whole number")
    return int(number)


def _text(value: NDArray[Any]) -> str:
    if value.size != 1 or value.dtype.kind not in "US":
        raise ValueError("the metadata is not a text")
    item = value.reshape(()).item()
    return item.decode() if isinstance(item, bytes) else str(item)


_TEXTS = {"extractor", "extractor_digest", "created_at", "distance", "generation"}
_NUMBERS = {"coreset_rate", "coreset_rate_applied", "radius"}
# What a memory is judged by: never passed over, whoever wrote it.
_JUDGED = {"extractor", "extractor_digest", "input_size", "distance"}
_WHOLES = {"format", "count_images", "n_embeddings", "seed"}


def _read(name: str, value: Any) -> Any:
    if name in _TEXTS and isinstance(value, str):
        return value
    if name in _WHOLES and isinstance(value, int) and not isinstance(value, bool):
        return value
    if name == "radius_exact" and isinstance(value, bool):
        return value
    if name == "extra" and isinstance(value, Mapping):
        return dict(value)
    if name == "input_size":
        sides = [value, value] if isinstance(value, int) else value
        if isinstance(sides, list) and len(sides) == 2 and all(type(side) is int for side in sides):
            return sides[0], sides[1]
    if name in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    raise TypeError(name)


def _another(theirs: str, ours: str) -> RequestError:
    return RequestError(
        f"The memory was made by another extractor: {theirs}; this one is {ours}.",
        hint="Fit the ROI again with /fit_ok, or serve with the extractor that made it.",
    )


def _wrong(what: str) -> IntegrityError:
    return IntegrityError(f"The memory can't be used: {what}.", hint="Fit it again.")
