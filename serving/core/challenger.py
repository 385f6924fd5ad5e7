"""Which version of a task answers beside the one that serves: one more small file a task.

::

    <root>/<task>/challenger.json     {format, task, version, digest, path, mode, share}

It names a verified copy as the pointer does, under the same ``versions/``. Servers that watch the root answer
for it as the model ``<task>-challenger``; what becomes of its answers is for whoever asks: ``mode`` says what
was decided. The file is replaced or removed in one step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.errors import IntegrityError, UsageError
from data.files import write_json
from serving.core.pointer import FORMAT, Pointer, check_name

FILE = "challenger.json"

#: Its answers are kept and never given to anyone.
SHADOW = "shadow"
#: It answers a share of the requests.
SHARE = "share"

_SUFFIX = "-challenger"


def challenger_name(task: str) -> str:
    """The name of the model that a task's challenger answers as."""
    return f"{task}{_SUFFIX}"


def check_mode(mode: str, share: float) -> None:
    """Refuse a mode or a share that there isn't.

    Raises:
        UsageError: says what there is.
    """
    if mode not in (SHADOW, SHARE):
        raise UsageError(f"A challenger answers in {SHADOW} or for a {SHARE}, not {mode!r}.")
    if not isinstance(share, int | float) or isinstance(share, bool) or not math.isfinite(share):
        raise UsageError(f"A share is a number, not {share!r}.")
    if mode == SHADOW and share:
        raise UsageError("A challenger in shadow answers no share of the requests.")
    if mode == SHARE and not 0 < share < 1:
        raise UsageError(
            f"A share lies between 0 and 1, {share:g} does not.",
            hint="0.1 is a tenth of the requests. Let it answer all of them by promoting it.",
        )


@dataclass(frozen=True, slots=True)
class Challenger:
    """A version that answers beside a task's champion: in ``shadow``, or for ``share`` of the requests."""

    pointer: Pointer
    mode: str
    share: float = 0.0

    def __post_init__(self) -> None:
        check_mode(self.mode, self.share)

    def to_dict(self) -> dict[str, Any]:
        """The file's content, without its format."""
        return {**asdict(self.pointer), "mode": self.mode, "share": float(self.share)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Challenger:
        """The inverse.

        Raises:
            UsageError, TypeError, KeyError: it is none.
        """
        pointer = {key: part for key, part in value.items() if key not in ("mode", "share")}
        return cls(Pointer(**pointer), value["mode"], value["share"])


def challenger_file(root: Path, task: str) -> Path:
    """The file that servers watch for a task's challenger."""
    check_name(task, "task")
    return root / task / FILE


def read_challenger(root: Path, task: str) -> Challenger | None:
    """The challenger of a task, or None where there is none.

    Raises:
        IntegrityError: the file is there but doesn't name one, or is another task's.
    """
    try:
        raw: Any = json.loads(challenger_file(root, task).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(task, f"can't be read ({error})") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise _damaged(task, f"is not of format {FORMAT}")
    try:
        found = Challenger.from_dict(raw)
    except (TypeError, KeyError, UsageError) as error:
        raise _damaged(task, f"names no challenger ({error})") from None
    if found.pointer.task != task:
        raise _damaged(task, f"names the task {found.pointer.task}")
    return found


def write_challenger(root: Path, challenger: Challenger) -> None:
    """Let a version answer beside the champion. The same again changes nothing.

    Raises:
        IntegrityError: the bundle's folder is not there.
    """
    pointer = challenger.pointer
    if not (pointer.folder(root) / "card.json").is_file():
        raise IntegrityError(
            f"{pointer.task} version {pointer.version} has no bundle at {pointer.path}.",
            hint="Put the verified copy there first; retiderm models challenge does both.",
        )
    try:
        if read_challenger(root, pointer.task) == challenger:
            return
    except IntegrityError:
        pass  # a damaged one is what we are about to replace
    write_json(challenger_file(root, pointer.task), {"format": FORMAT, **challenger.to_dict()})


def remove_challenger(root: Path, task: str) -> None:
    """Let none answer beside the champion any more; its copy stays."""
    challenger_file(root, task).unlink(missing_ok=True)


def _damaged(task: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"The challenger's pointer of {task} {what}.",
        hint=f"`retiderm models reconcile {task}` writes it again, or removes it.",
    )
