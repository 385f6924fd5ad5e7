"""A window on disk: a folder with ``window.json`` and ``window.npz``, whole or not there.

``docs/drift.md`` lists both files' contents; the format is ``FORMAT`` 1.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.files import atomic_dir, write_json
from serving.core.drift.window import Window

FORMAT = 1
INFO, ARRAYS = "window.json", "window.npz"

_PLAIN = ("gradable", "sharpness", "exposure", "colour", "embedding", "score")
_PROBABILITIES, _TRUTH = ".probabilities", ".truth"
#: Kept in half the bytes: nothing that is measured needs more.
_SINGLE = np.float32


@dataclass(frozen=True, slots=True)
class WindowInfo:
    """What a window is of. ``bundle_digest`` names the model whose answers it holds (``sha256:…``).

    ``started_at`` and ``ended_at`` (ISO 8601) are the first and the last image's; ``version`` the registry's.
    """

    task: str
    bundle_digest: str
    started_at: str | None = None
    ended_at: str | None = None
    version: str | None = None
    source: str = ""


def write_window(path: Path, window: Window, info: WindowInfo) -> None:
    """Write a window to the folder ``path``; one that is there is replaced."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in _PLAIN:
        value = getattr(window, name)
        if value is not None:
            arrays[name] = value if name == "gradable" else value.astype(_SINGLE)
    arrays |= {head + _PROBABILITIES: value.astype(_SINGLE) for head, value in window.probabilities.items()}
    arrays |= {head + _TRUTH: value.astype(np.int32) for head, value in window.truth.items()}
    with atomic_dir(Path(path)) as temporary:
        # Typed as if a file's name could be among the arrays.
        np.savez_compressed(temporary / ARRAYS, **arrays)  # type: ignore[arg-type]
        write_json(temporary / INFO, {"format": FORMAT, **asdict(info), "images": window.images})


def read_window(path: Path) -> tuple[Window, WindowInfo]:
    """Read a window's folder. Nothing is unpickled.

    Raises:
        DataError: it isn't a window, is of another format, or its arrays can't be read.
        UsageError: the arrays don't have the shapes that they should.
    """
    root = Path(path)
    if not (root / INFO).is_file():
        raise DataError(f"{root} is no window: it has no {INFO}.", hint="Make one: retiderm drift window.")
    try:
        found = json.loads((root / INFO).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{root / INFO} is not JSON ({error}).", hint="Write the window again.") from error
    images, info = _info(root, found)
    try:
        with np.load(root / ARRAYS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{root / ARRAYS} can't be read as plain arrays ({error}).", hint="Write the window again."
        ) from error
    taken: dict[str, Any] = {name: arrays.pop(name) for name in _PLAIN if name in arrays}
    for key, suffix in (("probabilities", _PROBABILITIES), ("truth", _TRUTH)):
        names = [name for name in arrays if name.endswith(suffix) and len(name) > len(suffix)]
        taken[key] = {name.removesuffix(suffix): arrays.pop(name) for name in names}
    if arrays:
        raise DataError(
            f"{root / ARRAYS} holds {', '.join(sorted(arrays))}, which format {FORMAT} doesn't know.",
            hint="docs/drift.md lists a window's arrays.",
        )
    return Window(images=images, **taken), info


def _info(root: Path, found: Any) -> tuple[int, WindowInfo]:
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        told = found.get("format") if isinstance(found, Mapping) else None
        raise DataError(
            f"{root / INFO} is of format {told!r}; this version reads format {FORMAT}.",
            hint="Write the window again with this version.",
        )
    names = {field.name for field in fields(WindowInfo)}
    given = {key: value for key, value in found.items() if key not in ("format", "images")}
    images = found.get("images")
    good = (
        not set(given) - names
        and isinstance(images, int)
        and not isinstance(images, bool)
        and images >= 0
        and all(isinstance(given.get(key), str) for key in ("task", "bundle_digest"))
        and all(value is None or isinstance(value, str) for value in given.values())
    )
    if not good:
        raise DataError(
            f"{root / INFO} isn't what a window says of itself.", hint="docs/drift.md lists its fields."
        )
    assert isinstance(images, int)
    return images, WindowInfo(**given)
