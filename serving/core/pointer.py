"""Which version of a task serves: one small file a task, which promotions write and predictors watch.

::

    <root>/<task>/pointer.json                          {format, task, version, digest, path}
    <root>/<task>/versions/<version>-<digest[:12]>/     the bundle: a copy that was verified

``path`` is relative to the task's folder, so that the whole root can be mounted somewhere else. The file is
replaced in one rename: a reader sees the old version or the new one, never a mixture.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data.errors import IntegrityError, UsageError
from data.files import write_json

FORMAT = 1
FILE = "pointer.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The version of a task that serves."""

    task: str
    version: str
    digest: str  # the bundle's own digest, "sha256:<hex>"
    path: str  # relative to the task's folder, with forward slashes

    def __post_init__(self) -> None:
        check_name(self.task, "task")
        check_name(self.version, "version")
        if not _DIGEST.fullmatch(self.digest):
            raise UsageError(f"A bundle's digest is sha256: and 64 hex digits, not {self.digest!r}.")
        parts = PurePosixPath(self.path).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise UsageError(f"A pointer's path stays inside its task's folder, {self.path!r} does not.")

    def folder(self, root: Path) -> Path:
        """Where the bundle is, under the serving root that the pointer was read from."""
        return root / self.task / self.path


def check_name(name: str, what: str) -> None:
    """Refuse a name that can't be one folder's name.

    Raises:
        UsageError: with the name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't name a {what}.",
            hint="Use letters, digits, '.', '_' and '-', beginning with a letter or a digit.",
        )


def version_path(version: str, digest: str) -> str:
    """The folder of a version's copy, relative to its task's folder."""
    return f"versions/{version}-{digest.removeprefix('sha256:')[:12]}"


def pointer_file(root: Path, task: str) -> Path:
    """The file that predictors watch for a task."""
    check_name(task, "task")
    return root / task / FILE


def read_pointer(root: Path, task: str) -> Pointer | None:
    """The pointer of a task, or None where nothing serves it yet.

    Raises:
        IntegrityError: the file is there but is not a pointer of this format or is another task's.
    """
    path = pointer_file(root, task)
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(task, f"can't be read ({error})") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise _damaged(task, f"is not of format {FORMAT}")
    try:
        pointer = Pointer(**raw)
    except (TypeError, UsageError) as error:
        raise _damaged(task, f"is not a pointer ({error})") from None
    if pointer.task != task:
        raise _damaged(task, f"names the task {pointer.task}")
    return pointer


def write_pointer(root: Path, pointer: Pointer) -> None:
    """Let a version serve. The same pointer again changes nothing, so that no predictor reloads for it.

    Raises:
        IntegrityError: the bundle's folder is not there.
    """
    if not (pointer.folder(root) / "card.json").is_file():
        raise IntegrityError(
            f"{pointer.task} version {pointer.version} has no bundle at {pointer.path}.",
            hint="Put the verified copy there first; a promotion does both.",
        )
    try:
        if read_pointer(root, pointer.task) == pointer:
            return
    except IntegrityError:
        pass  # a damaged pointer is what we are about to replace
    write_json(pointer_file(root, pointer.task), {"format": FORMAT, **asdict(pointer)})


def remove_pointer(root: Path, task: str) -> None:
    """Let nothing serve a task any more; its copies stay."""
    pointer_file(root, task).unlink(missing_ok=True)


def list_pointers(root: Path) -> dict[str, Pointer]:
    """The pointers of all tasks under a serving root, by task.

    Raises:
        IntegrityError: one of them is damaged.
    """
    if not root.is_dir():
        return {}
    found: dict[str, Pointer] = {}
    for folder in sorted(root.iterdir()):
        if _NAME.fullmatch(folder.name) and (folder / FILE).is_file():
            pointer = read_pointer(root, folder.name)
            if pointer is not None:
                found[folder.name] = pointer
    return found


def _damaged(task: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"The pointer of {task} {what}.",
        hint=f"`retiderm models reconcile` writes it again from the registry's champion of {task}.",
    )
