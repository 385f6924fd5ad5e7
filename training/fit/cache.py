"""Preprocessed pixels of a dataset, made once and mapped from a file ever after.

A dataset's digest and the preprocessing's digest name the pixels, so a cache can't be stale: another image,
split or parameter has another name. Rows are the distinct images in the order of their SHA-256.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import DatasetError, ImageError, UsageError
from data.files import atomic_dir, read_json, sha256_bytes, write_json
from data.image import STORED_LIMITS
from data.paths import home
from data.progress import track
from data.provenance import cpu_quota

if TYPE_CHECKING:
    from data.dataset import Dataset
    from data.preprocess import Preprocessing

_LIMIT_GIB = 16.0


@dataclass(frozen=True, slots=True)
class Pixels:
    """``array`` is uint8 ``[N, H, W, 3]`` mapped from a file; ``rows`` says where an image is in it."""

    array: NDArray[np.uint8]
    rows: dict[str, int]

    def where(self, sha256: Sequence[str]) -> NDArray[np.int64]:
        """The rows of images, by their SHA-256."""
        return np.array([self.rows[key] for key in sha256], dtype=np.int64)


def load_pixels(dataset: Dataset, preprocessing: Preprocessing) -> Pixels:
    """The pixels of every image of a dataset, from the cache or made now, in threads.

    Raises :class:`DatasetError` when an image is missing, was altered or can't be decoded.
    """
    root = home().root / "cache" / "pixels"
    name = (
        f"{dataset.digest.removeprefix('sha256:')[:24]}-{preprocessing.digest.removeprefix('sha256:')[:24]}"
    )
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{name}.lock"):
        _clear(root, name)
        pixels = _open(folder, preprocessing)
        if pixels is None:
            _make(folder, dataset, preprocessing)
            pixels = _open(folder, preprocessing)
            if pixels is None:
                raise DatasetError(f"The pixel cache {folder} can't be read back.", hint="Is the disk full?")
    os.utime(folder)
    _prune(root, keep=folder)
    return pixels


def _open(folder: Path, preprocessing: Preprocessing) -> Pixels | None:
    try:
        about = read_json(folder / "pixels.json")
        array = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, json.JSONDecodeError):
        return None
    keys = about.get("sha256", [])
    if array.dtype != np.uint8 or array.shape != (len(keys), *preprocessing.size, 3):
        return None
    return Pixels(array, {key: row for row, key in enumerate(keys)})


def _make(folder: Path, dataset: Dataset, preprocessing: Preprocessing) -> None:
    frame = dataset.frame().drop_duplicates("sha256").sort_values("sha256")
    keys = [str(key) for key in frame["sha256"]]
    paths = [dataset.image_path(str(path)) for path in frame["path"]]
    with atomic_dir(folder) as temporary:
        array = np.lib.format.open_memmap(
            temporary / "pixels.npy", mode="w+", dtype=np.uint8, shape=(len(keys), *preprocessing.size, 3)
        )

        def prepare(row: int, array: NDArray[np.uint8] = array) -> None:
            data = _read(paths[row], keys[row])
            try:
                array[row] = preprocessing(preprocessing.decode(data, STORED_LIMITS))
            except ImageError as error:
                raise DatasetError(
                    f"{paths[row].name} can't be decoded: {error.message}", hint="Run `retiderm data check`."
                ) from error

        with ThreadPoolExecutor(cpu_quota()) as pool:
            for _ in track(pool.map(prepare, range(len(keys))), "Preparing images", total=len(keys)):
                pass
        array.flush()
        del array
        write_json(temporary / "pixels.json", {"sha256": keys, "preprocessing": preprocessing.to_dict()})


def _read(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path} can't be read: {error.strerror}.", hint="Ingest the dataset again."
        ) from error
    if sha256_bytes(data) != sha256:
        raise DatasetError(
            f"{path.name} is not the image that was ingested.", hint="Ingest the dataset again."
        )
    return data


def limit_bytes() -> int:
    """How much the cache may hold: ``RETIDERM_CACHE_GIB``, 16 GiB when not set."""
    text = os.environ.get("RETIDERM_CACHE_GIB")
    try:
        return int((float(text) if text else _LIMIT_GIB) * 2**30)
    except ValueError as error:
        raise UsageError(f"RETIDERM_CACHE_GIB is {text!r}.", hint="Give a number of GiB.") from error


def _prune(root: Path, *, keep: Path) -> None:
    """Remove what was unused for longest until the rest fits. Whoever has it mapped keeps its pages.

    What a killed process left half made goes first; what one is making now stays and counts.
    """
    total = 0
    for path in _unfinished(root):
        name = path.name[1:].rsplit(".", 2)[0]
        with contextlib.suppress(BlockingIOError), _locked(root / f".{name}.lock", wait=False):
            _clear(root, name)
        total += _size(path)
    entries = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in entries:
        total += _size(path)
        if total > limit_bytes() and path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _size(folder: Path) -> int:
    try:
        return sum(item.stat().st_size for item in folder.iterdir())
    except FileNotFoundError:  # another process removed or renamed it meanwhile
        return 0


def _unfinished(root: Path, name: str = "*") -> list[Path]:
    """The temporary folders of ``atomic_dir``."""
    return [path for end in ("part", "old") for path in root.glob(f".{name}.*.{end}")]


def _clear(root: Path, name: str) -> None:
    """Remove what killed processes left of a cache; call it with the lock, so that nobody is making it."""
    for path in _unfinished(root, name):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
