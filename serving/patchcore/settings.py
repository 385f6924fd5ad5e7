"""What the service is told by its environment: the old service's names first, then our own.

The old ones: ``MODEL_NAME``, ``DEVICE``, ``INPUT_SIZE``, ``CORESET_RATE``, ``MODELS_DIR``, ``HOST`` and
``PORT``. Ours begin with ``PATCHCORE_``; docs/s4.md lists them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from data.errors import UsageError
from data.paths import home

Device = Literal["auto", "cpu", "cuda"]

MODEL = "vit_small_patch14_dinov2.lvd142m"
INPUT_SIZE = 448


def extractors() -> Path:
    """Where extractors are kept that nobody gave another folder."""
    return home().root / "extractors"


def extractor_name(backbone: str, size: tuple[int, int]) -> str:
    """The name of an extractor's folder there, by its model and its input's (height, width)."""
    height, width = size
    return f"{backbone}-{height}" if height == width else f"{backbone}-{height}x{width}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service agrees to take, hold and wait for. Bytes, pixels, seconds, counts.

    ``fit_memory_bytes`` is what a fit's embeddings may take of memory, beyond which they lie in an unnamed
    file of the temporary folder, and again what the choice of the coreset may. ``max_embeddings`` ends what a
    fit may be at all: at 384 numbers each, 1.1 million are 1.7 GB.
    """

    max_body_bytes: int = 64 * 2**20
    max_fit_bytes: int = 2 * 2**30
    max_image_bytes: int = 20 * 2**20
    max_image_pixels: int = 16_000_000
    max_images: int = 2000
    max_embeddings: int = 1_100_000
    max_scores: int = 200_000
    max_waiting: int = 32
    max_waiting_fits: int = 8
    upload_s: float = 300.0
    infer_s: float = 60.0
    fit_s: float = 3600.0
    max_rois: int = 64
    cache_bytes: int = 2**30
    fit_memory_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"The limit {item.name} is {value!r}.", hint="It is a number above 0; leave it out."
                )


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings.

    - ``model_name``, ``input_size``: which extractor; None takes what the folder holds. A size is snapped to
      the model's patches, see :attr:`snapped`.
    - ``extractor``: its folder; None: :attr:`extractor_folder` says where it is then looked for.
    - ``debug``: answers carry real stack traces.
    - ``open_access``: may listen beyond this machine, though nothing here asks who calls.
    - ``threads``: of one pass through the extractor; None: the CPU quota.
    - ``workers``: requests worked on at once; ``fit_workers``: of these, fits.
    """

    models_dir: Path = Path("models")
    extractor: Path | None = None
    model_name: str | None = None
    input_size: int | None = None
    device: Device = "auto"
    coreset_rate: float = 0.02
    blur_sigma: float = 1.0
    host: str = "127.0.0.1"
    port: int = 8000
    open_access: bool = False
    debug: bool = False
    threads: int | None = None
    workers: int = 2
    fit_workers: int = 1
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.device not in get_args(Device):
            raise UsageError(f"DEVICE {self.device!r} is not one of {', '.join(get_args(Device))}.")
        if not 0 < self.coreset_rate <= 1:
            raise UsageError(f"CORESET_RATE {self.coreset_rate!r} is not above 0 and at most 1.")
        if not (math.isfinite(self.blur_sigma) and 0 <= self.blur_sigma <= 100):
            raise UsageError(f"PATCHCORE_BLUR_SIGMA {self.blur_sigma!r} is not a number from 0 to 100.")
        if self.input_size is not None and not 8 <= self.input_size <= 4096:
            raise UsageError(f"INPUT_SIZE {self.input_size!r} is not from 8 to 4096.")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"PORT {self.port!r} is not from 0 to 65535.")
        if self.workers < 1 or self.fit_workers < 1 or (self.threads is not None and self.threads < 1):
            raise UsageError("Threads and workers are whole numbers of at least 1.")

    @property
    def snapped(self) -> int | None:
        """``input_size`` at the nearest multiple of the model's patch, where its name says one."""
        patch = re.search(r"patch(\d+)", self.model_name or MODEL)
        if self.input_size is None or patch is None:
            return self.input_size
        side = int(patch.group(1))
        return max(1, round(self.input_size / side)) * side

    @property
    def extractor_folder(self) -> Path:
        """Where the extractor is: as told, or ``RETIDERM_HOME/extractors/<model>-<size>``."""
        if self.extractor is not None:
            return self.extractor
        side = self.snapped or INPUT_SIZE
        return extractors() / extractor_name(self.model_name or MODEL, (side, side))

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment names; what it leaves out, or leaves empty, has its default.

        Raises:
            UsageError: a value can't be read, or is out of its range.
        """
        given = {k: v.strip() for k, v in (os.environ if environment is None else environment).items()}
        taken: dict[str, Any] = {}
        for name, (key, read) in _NAMES.items():
            if given.get(name):
                taken[key] = _read(name, given[name], read)
        bounds = {
            item.name: _read(name, given[name], int if item.type == "int" else float)
            for item in fields(Limits)
            if given.get(name := f"PATCHCORE_{item.name.upper()}")
        }
        return cls(**taken, limits=replace(Limits(), **bounds))


def _read(name: str, text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{name}={text!r} can't be read as {kind.__name__.strip('_')}.") from None


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


_NAMES: dict[str, tuple[str, Any]] = {
    "MODEL_NAME": ("model_name", str),
    "DEVICE": ("device", str.lower),
    "INPUT_SIZE": ("input_size", int),
    "CORESET_RATE": ("coreset_rate", float),
    "MODELS_DIR": ("models_dir", Path),
    "HOST": ("host", str),
    "PORT": ("port", int),
    "PATCHCORE_EXTRACTOR": ("extractor", Path),
    "PATCHCORE_BLUR_SIGMA": ("blur_sigma", float),
    "PATCHCORE_OPEN_ACCESS": ("open_access", _switch),
    "PATCHCORE_DEBUG": ("debug", _switch),
    "PATCHCORE_THREADS": ("threads", int),
    "PATCHCORE_WORKERS": ("workers", int),
    "PATCHCORE_FIT_WORKERS": ("fit_workers", int),
}
