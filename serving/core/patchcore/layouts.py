"""Where the files of a ROI may lie, in this version's layout and older ones'; reading them as one generation.

- Folders: ``<role>/<roi>/memory.npz``, ``index.faiss``, ``calib.json``; ours are those whose metadata names a
  generation.
- Flat names, which a later old version wrote: ``<role>_<roi>.npz``, ``<role>_<roi>_index.faiss``,
  ``<role>_<roi>_calib.json``. Old versions wrote ``_`` for every character but letters, digits, ``-`` and
  ``_``.

A folder of ours is newer than any flat file, a flat file newer than an older folder. A flat name is
ambiguous: ``a_b_c`` is ROI ``c`` of ``a_b`` and ROI ``b_c`` of ``a``, which the old version mixed up as
well. It serves whoever spells it that way, with a warning in the log, until that pair is fitted anew and so
has a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import IntegrityError, RequestError
from serving.core.patchcore import flat_index
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.memory import Memory, read_memory
from serving.core.patchcore.names import check_token

MEMORY, INDEX, CALIBRATION = "memory.npz", "index.faiss", "calib.json"

#: (device, inode, size, modified) of the folder's and the files' entries.
Stamp = tuple[tuple[int, int, int, int] | None, ...]

_MAX_CALIBRATION = 1 << 20
# A reader that meets a swap starts again; each swap is a whole fit, so a few are plenty.
_ATTEMPTS = 20

_log = logging.getLogger("retiderm.patchcore")


@dataclass(frozen=True, slots=True)
class Files:
    """One generation of a ROI as its files hold it."""

    memory: Memory
    calibration: Calibration | None
    calibration_bytes: bytes | None
    generation: str
    euclidean: bool
    index_path: Path
    calibration_path: Path

    @property
    def ours(self) -> bool:
        """Whether this version wrote the memory."""
        return self.memory.info is not None and self.memory.info.generation is not None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the three files of one generation lie; ``folder`` None for flat names."""

    folder: Path | None
    memory: Path
    index: Path
    calibration: Path

    def stamp(self) -> Stamp:
        folder = None if self.folder is None else _entry(self.folder, folder=True)
        return (folder, *(_entry(path) for path in (self.memory, self.index, self.calibration)))


def find(root: Path, role: str, roi: str) -> Files | None:
    """Read the generation of a ROI that counts; None where there is none.

    Raises:
        IntegrityError: its files are damaged or not of one fit.
    """
    newest = _read(_in_folder(_folder(root, role, roi)))
    if newest is not None and newest.ours:
        return newest
    for place in _older(root, role, roi):
        found = _read(place)
        if found is None:
            continue
        if newest is not None and place.folder is not None:
            break  # two old folders: the one of the exact name
        if place.folder is None and _ambiguous(place.memory.name):
            _log.warning(
                "ROI %s of role %s is read from a flat name that other roles and ROIs share; "
                "fit it again to give it files of its own.",
                roi,
                role,
            )
        return found
    return newest


def stamp(root: Path, role: str, roi: str) -> Stamp | None:
    """The state of all files that :func:`find` may read for a ROI; None where there is no memory."""
    places = (_in_folder(_folder(root, role, roi)), *_older(root, role, roi))
    states = [place.stamp() for place in places]
    if all(state[1] is None for state in states):
        return None
    return tuple(entry for state in states for entry in state)


def calibration_of(root: Path, role: str, roi: str) -> bytes | None:
    """The bytes of a ROI's ``calib.json``, read by nothing and so whatever they and the other files hold."""
    for place in (_in_folder(_folder(root, role, roi)), *_older(root, role, roi)):
        if place.memory.is_file():
            return place.calibration.read_bytes() if place.calibration.is_file() else None
    return None


def retire_flat(root: Path, role: str, roi: str) -> None:
    """Rename a ROI's flat files to ``….retired``, which no version reads, once it has a folder of its own.

    Ambiguous ones stay: they may be another ROI's as well.
    """
    for place in _older(root, role, roi):
        if place.folder is not None or _ambiguous(place.memory.name):
            continue
        # The memory first: without it, the others are read by nothing.
        for path in (place.memory, place.index, place.calibration):
            if path.is_file():
                path.replace(path.with_name(path.name + ".retired"))


def listing(root: Path) -> tuple[tuple[str, str], ...]:
    """All (role, roi) under ``root`` that have a memory, sorted."""
    found = set()
    for item in root.iterdir() if root.is_dir() else ():
        if item.is_file() and item.suffix == ".npz":
            role, _, roi = item.stem.partition("_")
            if _is_token(role) and _is_token(roi):
                found.add((role, roi))
        elif item.is_dir() and _is_token(item.name):
            for inner in item.iterdir():
                if _is_token(inner.name) and (inner / MEMORY).is_file():
                    found.add((item.name, inner.name))
    return tuple(sorted(found))


def plain_json(value: Any) -> bytes:
    """Readable JSON, as ``data.files.write_json`` writes it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def consistent(memory: Memory, index: bytes) -> None:
    """Make sure that the bytes of ``index.faiss`` hold the memory's vectors.

    Raises:
        IntegrityError: they are of another fit, or damaged.
    """
    vectors = flat_index.unpack(index)
    # Old versions stored the same float32 in both; NaN compares as different.
    if vectors.shape != memory.emb.shape or not np.abs(vectors - memory.emb).max() <= 1e-5:
        raise IntegrityError(
            "index.faiss and memory.npz of the ROI are not of one fit.",
            hint="Fit the ROI again with /fit_ok.",
        )


def _folder(root: Path, role: str, roi: str) -> Path:
    folder = root / role / roi
    if not folder.exists() and folder.parent.is_dir():
        # Where a filesystem can't swap two folders, a kill leaves the old one here, or a fit at work now.
        for left in sorted(folder.parent.glob(f".{roi}.????????.old")):
            if (left / roi / MEMORY).is_file():
                return left / roi
    return folder


def _in_folder(folder: Path) -> _Place:
    return _Place(folder, folder / MEMORY, folder / INDEX, folder / CALIBRATION)


def _older(root: Path, role: str, roi: str) -> list[_Place]:
    """Flat names, then the folder of an old version's spelling where that differs."""
    spelled = [(role, roi)]
    old = (_old_spelling(role), _old_spelling(roi))
    if old != spelled[0]:
        spelled.append(old)
    stems = [f"{one}_{other}" for one, other in spelled]
    places = [
        _Place(None, root / f"{stem}.npz", root / f"{stem}_index.faiss", root / f"{stem}_calib.json")
        for stem in stems
    ]
    return places + [_in_folder(root / one / other) for one, other in spelled[1:]]


def _old_spelling(token: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", token)


def _ambiguous(name: str) -> bool:
    return name.count("_") > 1


def _is_token(name: str) -> bool:
    try:
        check_token(name)
    except RequestError:
        return False
    return True


def _read(place: _Place) -> Files | None:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(0.01 * attempt)
        before = place.stamp()
        if before[1] is None:
            return None
        try:
            data = place.memory.read_bytes()
            index = place.index.read_bytes() if before[2] else None
            calibration = place.calibration.read_bytes() if before[3] else None
        except FileNotFoundError:  # a fit has swapped the folder away
            continue
        if place.stamp() == before:
            return _parse(place, data, index, calibration)
    raise IntegrityError(
        "The ROI's files change faster than they can be read.", hint="Fit a ROI from one place at a time."
    )


def _parse(place: _Place, data: bytes, index: bytes | None, calibration: bytes | None) -> Files:
    memory = read_memory(data)
    if index is not None:
        consistent(memory, index)
    info = memory.info
    generation = info.generation if info else None
    calibrated = None if calibration is None else _calibration(calibration)
    return Files(
        memory=memory,
        calibration=calibrated,
        calibration_bytes=calibration,
        generation=generation or "old-" + hashlib.sha256(data).hexdigest()[:32],
        # The old service searched without FAISS in Euclidean distances and then wrote no index.
        euclidean=calibrated is not None and index is None and (info is None or info.distance is None),
        index_path=place.index,
        calibration_path=place.calibration,
    )


def _calibration(data: bytes) -> Calibration | None:
    if len(data) > _MAX_CALIBRATION:
        raise IntegrityError("calib.json of the ROI is no calibration.", hint="Calibrate the ROI again.")
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise IntegrityError(
            f"calib.json of the ROI is no JSON ({error}).", hint="Calibrate the ROI again with /calibrate_ng."
        ) from error
    if isinstance(plain, dict) and plain.get("threshold") is None:
        return None  # an old version stored a calibration without a threshold as one that isn't there
    return Calibration.from_dict(plain)


def _entry(path: Path, *, folder: bool = False) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116, called for every request
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(status.st_mode) != folder:
        return None  # "a_b.npz" may be a role, whose folder is no flat file of ROI b of role a
    return status.st_dev, status.st_ino, 0 if folder else status.st_size, status.st_mtime_ns
