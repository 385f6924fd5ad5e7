"""The memories of all ROIs on disk, as contract S4 lays them out: ``models/<role>/<roi>/``.

A folder holds ``memory.npz``, ``index.faiss`` and ``calib.json``, plain files that any older reader opens
at those very paths. A fit writes a new folder beside it and swaps the two in one step
(``data.files.atomic_dir``), so that a reader sees one generation or the next and a kill leaves the old one
serving. ``layouts.py`` reads what older versions wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import IntegrityError, RequestError
from data.files import atomic_dir, write_bytes, write_json
from serving.core.patchcore import flat_index, layouts
from serving.core.patchcore.calibrate import Calibration
from serving.core.patchcore.layouts import CALIBRATION, INDEX, MEMORY, Files, Stamp
from serving.core.patchcore.memory import DISTANCE, Memory, MemoryInfo, now, pack_memory
from serving.core.patchcore.names import check_token
from serving.core.patchcore.search import Index, open_index

#: What a fit does with the calibration of the generation before: it is kept for people, and read by nothing.
RETIRED = "calib.retired.json"

_log = logging.getLogger("retiderm.patchcore")


@dataclass(frozen=True, slots=True)
class StoredRoi:
    """One generation of a ROI, read whole. ``calibration`` None: not calibrated since its fit.

    ``stamp`` changes whenever a file of the ROI does; compare it with ``RoiStore.stamp``.
    """

    role: str
    roi: str
    memory: Memory
    index: Index
    calibration: Calibration | None
    generation: str
    stamp: Stamp


class RoiStore:
    """All ROIs under one folder. Safe for several threads and processes on one host."""

    def __init__(self, models_dir: Path, *, faiss: bool | None = None) -> None:
        """``faiss`` None: search by FAISS where it is installed. The folder need not be there yet."""
        self.root = models_dir
        self._faiss = faiss

    def folder(self, role: str, roi: str) -> Path:
        """Where this version writes the ROI. Raises ``RequestError`` for an id that is no path-safe token."""
        return self.root / check_token(role, "role_id") / check_token(roi, "roi_id")

    def load(self, role: str, roi: str) -> StoredRoi:
        """Read a ROI; one that was calibrated in Euclidean distances is migrated first, once.

        Raises:
            RequestError: an id is no path-safe token, or there is no memory for it.
            IntegrityError: a file is damaged, or they aren't of one fit.
        """
        self.folder(role, roi)
        # Taken before the files are read: a change meanwhile makes it an old stamp, never a wrong one.
        stamp = layouts.stamp(self.root, role, roi)
        files = self._files(role, roi)
        if files.euclidean:
            files = self._migrated(role, roi, files)
            stamp = layouts.stamp(self.root, role, roi)
        return StoredRoi(
            role,
            roi,
            files.memory,
            open_index(files.memory.emb, faiss=self._faiss),
            files.calibration,
            files.generation,
            stamp or (),
        )

    def stamp(self, role: str, roi: str) -> Stamp | None:
        """What tells one state of the ROI's files from another, without reading them; None: no memory."""
        self.folder(role, roi)
        return layouts.stamp(self.root, role, roi)

    def publish(self, role: str, roi: str, memory: Memory) -> str:
        """Put a newly fitted memory in place as one generation; give the generation's name.

        The calibration of the generation before is kept beside it as ``calib.retired.json``, which nothing
        reads. Returns after the files are on the disk.
        """
        with self._locked(role, roi):
            generation = uuid.uuid4().hex
            info = replace(
                memory.info or MemoryInfo(),
                distance=DISTANCE,
                generation=generation,
                created_at=(memory.info.created_at if memory.info else None) or now(),
            )
            retired = layouts.calibration_of(self.root, role, roi)
            self._put(role, roi, replace(memory, info=info), {RETIRED: retired})
            layouts.retire_flat(self.root, role, roi)
        return generation

    def save_calibration(self, role: str, roi: str, calibration: Calibration, *, generation: str) -> None:
        """Store the calibration of that generation; ``/infer`` answers by it from now on.

        Raises:
            RequestError: there is no memory, or another fit has taken its place meanwhile.
        """
        with self._locked(role, roi):
            files = self._files(role, roi)
            if files.euclidean:
                files = self._migrate(role, roi, files)
            if files.generation != generation:
                raise RequestError(
                    f"ROI {roi!r} of role {role!r} was fitted again meanwhile.",
                    hint="The scores are the old memory's: score the images again, then calibrate.",
                )
            if not files.index_path.exists():
                # Its absence would say that the calibration is in Euclidean distances.
                write_bytes(files.index_path, flat_index.pack(files.memory.emb))
            write_json(files.calibration_path, calibration.to_dict())

    def list(self) -> tuple[tuple[str, str], ...]:
        """All (role, roi) that have a memory, in order. A flat name is split at its first underscore."""
        return layouts.listing(self.root)

    def _files(self, role: str, roi: str) -> Files:
        self.folder(role, roi)
        files = layouts.find(self.root, role, roi)
        if files is None:
            raise RequestError(
                f"There is no memory for ROI {roi!r} of role {role!r}.", hint="Fit it first with /fit_ok."
            )
        return files

    def _migrated(self, role: str, roi: str, files: Files) -> Files:
        try:
            with self._locked(role, roi):
                files = self._files(role, roi)
                return self._migrate(role, roi, files) if files.euclidean else files
        except OSError as error:
            _log.warning(
                "ROI %s of role %s is calibrated in Euclidean distances and can't be migrated on disk (%s); "
                "its thresholds are squared each time it is loaded.",
                roi,
                role,
                error.strerror,
            )
            return replace(files, calibration=_squared(files))

    def _migrate(self, role: str, roi: str, files: Files) -> Files:
        calibration = _squared(files)
        info = replace(files.memory.info or MemoryInfo(), distance=DISTANCE, generation=files.generation)
        self._put(
            role,
            roi,
            replace(files.memory, info=info),
            {RETIRED: files.calibration_bytes, CALIBRATION: layouts.plain_json(calibration.to_dict())},
        )
        layouts.retire_flat(self.root, role, roi)
        _log.info(
            "ROI %s of role %s was calibrated in Euclidean distances: threshold %g became %g (squared L2).",
            roi,
            role,
            files.calibration.threshold if files.calibration else float("nan"),
            calibration.threshold,
        )
        return self._files(role, roi)

    def _put(self, role: str, roi: str, memory: Memory, others: dict[str, bytes | None]) -> None:
        folder = self.folder(role, roi)
        with atomic_dir(folder) as new:
            (new / MEMORY).write_bytes(pack_memory(memory))
            (new / INDEX).write_bytes(flat_index.pack(memory.emb))
            for name, data in others.items():
                if data is not None:
                    (new / name).write_bytes(data)
            _carry_over(folder, new)

    @contextlib.contextmanager
    def _locked(self, role: str, roi: str) -> Iterator[None]:
        """One writer of a ROI at a time, in this process and others; a kill lets the lock go."""
        self.folder(role, roi)
        path = self.root / ".locks" / role / f"{roi}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _squared(files: Files) -> Calibration:
    if files.calibration is None:
        raise IntegrityError("There is no calibration to migrate.")
    return files.calibration.squared()


def _carry_over(old: Path, new: Path) -> None:
    """Copy what someone else keeps in the ROI's folder; our files and half-written ones stay behind."""
    if not old.is_dir():
        return
    for item in sorted(old.iterdir()):
        if item.name in (MEMORY, INDEX, CALIBRATION, RETIRED) or item.name.startswith("."):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)
