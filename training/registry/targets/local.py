"""The serving root of this machine or of a mounted volume: verified copies, and the pointer to one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import BundleError, IntegrityError
from data.paths import home
from serving.core.bundle import Bundle
from serving.core.challenger import Challenger, read_challenger, remove_challenger, write_challenger
from serving.core.pointer import Pointer, read_pointer, remove_pointer, version_path, write_pointer
from training.registry.store import copy_bundle

if TYPE_CHECKING:
    from training.registry.client import Registry
    from training.registry.version import Version


class LocalTarget:
    """``pointer.json``, ``challenger.json`` and ``versions/`` in ``<root>/<task>/``; the root may be any."""

    name = "local"

    def __init__(self, registry: Registry, root: Path | None = None) -> None:
        self._registry = registry
        self._named = root.resolve() if root is not None else None

    @property
    def root(self) -> Path:
        """The serving root."""
        return self._named or home().serving

    @classmethod
    def from_spec(cls, registry: Registry, spec: Mapping[str, Any]) -> LocalTarget:
        """From the ledger."""
        root = spec.get("root")
        return cls(registry, Path(root) if root else None)

    def spec(self) -> dict[str, Any]:
        """A home may be mounted elsewhere tomorrow, so its own root is not written down."""
        return {"kind": "local", "root": str(self._named) if self._named else None}

    def current(self, task: str) -> dict[str, Any] | None:
        """The pointer; a damaged one counts as none, since nothing can serve by it."""
        try:
            pointer = read_pointer(self.root, task)
        except IntegrityError:
            return None
        return asdict(pointer) if pointer else None

    def serves(self, version: Version) -> bool:
        """Whether the pointer names the version and its copy is whole."""
        return self.current(version.task) == asdict(self._pointer(version)) and self._whole(version)

    def prepare(self, version: Version) -> None:
        """Copy the bundle, verified. A whole copy that is there already stays as it is."""
        if not self._whole(version):
            copy_bundle(self._registry.bundle(version), self._pointer(version).folder(self.root))

    def apply(self, version: Version) -> None:
        """Turn the pointer: predictors that watch it load the copy and swap."""
        write_pointer(self.root, self._pointer(version))

    def restore(self, task: str, state: Mapping[str, Any] | None) -> None:
        """Turn the pointer back, copying the bundle again where its copy is gone."""
        if state is None:
            remove_pointer(self.root, task)
            return
        pointer = Pointer(**state)
        if not (pointer.folder(self.root) / "card.json").is_file():
            self.prepare(self._registry.get(task, pointer.digest))
        write_pointer(self.root, pointer)

    def tidy(self, task: str, keep: Sequence[Version]) -> None:
        """Remove other versions' copies, and what crashes left. Only under the task's promotion lock."""
        folder = self.root / task / "versions"
        kept = {self._pointer(version).folder(self.root).name for version in keep}
        pointer = self.current(task)
        if pointer:
            kept.add(Path(pointer["path"]).name)
        with contextlib.suppress(IntegrityError):
            beside = read_challenger(self.root, task)
            if beside is not None:
                kept.add(Path(beside.pointer.path).name)
        for item in folder.iterdir() if folder.is_dir() else ():
            if item.name not in kept and item.is_dir():
                shutil.rmtree(item, ignore_errors=True)

    def challenger(self, task: str) -> dict[str, Any] | None:
        """What ``challenger.json`` says; a damaged one says only that it is there."""
        try:
            found = read_challenger(self.root, task)
        except IntegrityError:
            return {"damaged": True}
        if found is None:
            return None
        pointer = found.pointer
        return {
            "version": pointer.version,
            "digest": pointer.digest,
            "mode": found.mode,
            "share": found.share,
        }

    def challenges(self, version: Version, mode: str, share: float) -> bool:
        """Whether the file says exactly this and the copy is whole."""
        said = {"version": version.version, "digest": version.digest, "mode": mode, "share": share}
        return self.challenger(version.task) == said and self._whole(version)

    def prepare_challenger(self, version: Version) -> None:
        """Copy the bundle, as for a promotion, which then has nothing left to copy."""
        self.prepare(version)

    def challenge(self, version: Version, mode: str, share: float) -> None:
        """Name the copy: servers that watch load it and answer for it."""
        write_challenger(self.root, Challenger(self._pointer(version), mode, share))

    def withdraw(self, task: str) -> None:
        """Name none: servers that watch let it go."""
        remove_challenger(self.root, task)

    def _pointer(self, version: Version) -> Pointer:
        return Pointer(
            version.task, version.version, version.digest, version_path(version.version, version.digest)
        )

    def _whole(self, version: Version) -> bool:
        folder = self._pointer(version).folder(self.root)
        if not folder.is_dir():
            return False
        try:
            return Bundle.open(folder).digest == version.digest
        except (BundleError, OSError):
            return False
