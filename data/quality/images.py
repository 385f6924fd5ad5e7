"""Images to measure, from wherever they lie: files, folders, lists of files, arrays of small images."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from data.image import STORED_LIMITS, decode
from data.preprocess import MEASURE_SIDE

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True, slots=True)
class Found:
    """One image. ``read`` decodes it to RGB as the preprocessing would; it may raise ``ImageError``."""

    name: str
    read: Callable[[], NDArray[np.uint8]]


def find_images(places: Sequence[str], *, limit: int | None = None) -> list[Found]:
    """The images at ``places``, by name; at most ``limit``, spread evenly over them.

    A place is an image file, a folder (a canonical dataset's too) with images at any depth, a ``.txt`` file
    that names one image a line, or an ``.npz`` file with ``uint8`` arrays ``*_images [N, H, W(, 3)]`` as
    MedMNIST has them.
    """
    found = [image for place in places for image in _at(Path(place).expanduser())]
    if not found:
        raise UsageError(
            f"There is no image at {', '.join(places)}.",
            hint=f"Name images or a folder that holds some ({', '.join(sorted(_SUFFIXES))}).",
        )
    if limit is not None and limit < len(found):
        found = [found[index * len(found) // limit] for index in range(limit)]
    return found


def _at(place: Path) -> list[Found]:
    if place.is_dir():
        files = sorted(
            path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
        )
        return [_file(path, path.relative_to(place).as_posix()) for path in files]
    if not place.is_file():
        raise UsageError(f"There is no file or folder {place}.")
    if place.suffix == ".txt":
        try:
            lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{place} is not a UTF-8 text file ({error.reason}).",
                hint="It needs one image's path a line.",
            ) from error
        return [_file(place.parent / line, line) for line in lines if line]
    if place.suffix == ".npz":
        return _arrays(place)
    return [_file(place, place.name)]


def _file(path: Path, name: str) -> Found:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    return Found(name, lambda: decode(path.read_bytes(), STORED_LIMITS, min_side=MEASURE_SIDE))


def _arrays(path: Path) -> list[Found]:
    found = []
    for key, images in _load(path).items():
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
            raise UsageError(
                f"{path} holds {key} as {images.dtype} {images.shape}, not uint8 [N, H, W(, 3)]."
            )
        found += [Found(f"{key}[{index}]", partial(_rgb, image)) for index, image in enumerate(images)]
    return found


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Our own handle: NumPy leaves its open when the archive turns out to be broken.
        with path.open("rb") as stream:
            arrays = np.load(stream, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with arrays:
                return {key: arrays[key] for key in sorted(arrays.files) if key.endswith("_images")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"{path} is not a readable .npz: {error}.", hint="Download or write it again."
        ) from error


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))
