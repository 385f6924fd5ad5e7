"""A bundle on disk: one folder that is whole or not there, and whose every file is verified before use."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from data.errors import BundleError
from data.files import atomic_dir, sha256_bytes, sha256_file, write_json
from serving.core.bundle.card import Card, FileCard, check_name

CARD = "card.json"
REFERENCE = "reference.npz"
GOLDEN = "golden.npz"

_MAX_CARD_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle. ``digest`` is over the card, which holds the digest of every other file."""

    root: Path
    card: Card
    digest: str

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> Bundle:
        """Open a bundle and, by default, verify every file against the card.

        ``verify=False`` still reads the card strictly and checks that each file is there with its size; it is
        for those who verified these bytes moments ago.

        Raises:
            BundleError: not a bundle, of an unknown format, or a file is missing, extra, altered or a link.
        """
        root = Path(path)
        if not root.is_dir():
            raise BundleError(
                f"No bundle at {root}.",
                hint="Name the folder that holds card.json, or train: retiderm run TASK.",
            )
        root = root.resolve()
        raw = _read_card(root)
        bundle = cls(root, Card.from_dict(_parse(root, raw)), "sha256:" + sha256_bytes(raw))
        bundle._check_entries()
        if verify:
            bundle.verify()
        return bundle

    def path(self, name: str) -> Path:
        """Where a file of the bundle lies; ``BundleError`` when the card doesn't list it."""
        if name not in self.card.files:
            raise BundleError(
                f"The bundle of {self.card.task!r} has no {name!r}.",
                hint=f"It has: {', '.join(sorted(self.card.files))}.",
            )
        return self.root / check_name(name)

    def read(self, name: str) -> bytes:
        """A file's bytes, verified as they were read."""
        data = self.path(name).read_bytes()
        if sha256_bytes(data) != self.card.files[name].sha256:
            _altered(self.root, name)
        return data

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of an ``.npz`` of the bundle. Pickled objects are refused."""
        try:
            with np.load(self.path(name), allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{name!r} in {self.root} can't be read as plain arrays ({error}).",
                hint="Export the bundle again from its run.",
            ) from error

    def verify(self) -> None:
        """Compare every file with the card; ``BundleError`` for the first that differs."""
        for name, file in self.card.files.items():
            if sha256_file(self.root / name) != file.sha256:
                _altered(self.root, name)

    def _check_entries(self) -> None:
        found = {}
        for item in sorted(self.root.rglob("*")):
            name = item.relative_to(self.root).as_posix()
            if item.is_symlink() or not (item.is_file() or item.is_dir()):
                raise BundleError(
                    f"{name!r} in {self.root} is a link or no plain file.",
                    hint="Copy the bundle with its files' contents (cp -rL).",
                )
            if item.is_file():
                found[name] = item.stat().st_size
        found.pop(CARD, None)
        missing = sorted(set(self.card.files) - set(found))
        if missing:
            raise BundleError(
                f"The bundle at {self.root} lacks {', '.join(missing)}.",
                hint="Its copy is incomplete: copy it again from the registry.",
            )
        extra = sorted(set(found) - set(self.card.files))
        if extra:
            raise BundleError(
                f"The bundle at {self.root} holds files that its card doesn't know: {', '.join(extra)}.",
                hint="Remove them, or copy the bundle again from the registry.",
            )
        for name, file in self.card.files.items():
            if found[name] != file.bytes:
                _altered(self.root, name)


def write_bundle(path: Path, card: Card, files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle whole: to a temporary folder beside ``path``, flushed, verified, then renamed.

    ``card.files`` is filled in here. A bundle that is already at ``path`` is replaced.

    Raises:
        BundleError: a file's name leads outside, or the card names a model file that isn't given.
    """
    for name in files:
        check_name(name)
    absent = sorted({item.file for item in card.precisions.values()} - set(files))
    if absent:
        raise BundleError(
            f"The card names {', '.join(absent)}, but no such file was given.", hint="Export it first."
        )
    with atomic_dir(Path(path)) as temporary:
        listed = {}
        for name, source in sorted(files.items()):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                target.write_bytes(source)
            else:
                shutil.copyfile(source, target)
            listed[name] = FileCard(sha256_file(target), target.stat().st_size)
        write_json(temporary / CARD, dataclasses.replace(card, files=listed).to_dict())
        # What can't be opened must not be published.
        Bundle.open(temporary, verify=False)
    return Bundle.open(path, verify=False)


def _read_card(root: Path) -> bytes:
    file = root / CARD
    if file.is_symlink() or not file.is_file():
        raise BundleError(
            f"{root} is no bundle: it has no {CARD}.", hint="Name the folder that holds card.json."
        )
    if file.stat().st_size > _MAX_CARD_BYTES:
        raise BundleError(f"{file} is too large for a card.", hint="Export the bundle again from its run.")
    return file.read_bytes()


def _parse(root: Path, raw: bytes) -> Any:
    def refuse(token: str) -> NoReturn:
        raise ValueError(f"{token} is not JSON")

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{root / CARD} is not readable JSON ({error}).", hint="Export the bundle again from its run."
        ) from error


def _altered(root: Path, name: str) -> NoReturn:
    raise BundleError(
        f"{name!r} in {root} is not the file that was exported.",
        hint="Don't use it: copy the bundle again from the registry, and find out what changed it.",
    )
