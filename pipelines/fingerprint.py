"""What a pipeline's cache can't see by itself: whether the source or the code changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from data.files import digest_json, sha256_file
from data.provenance import code_digest

_HASHED_UP_TO = 256 * 2**20
_PACKAGES = ("components", "data", "pipelines", "serving", "training")


def source_path(spec: str) -> Path | None:
    """The path in ``KIND:PATH?options``, or None where there is none (synthetic sources)."""
    from data.sources import parse_spec

    path = parse_spec(spec).path
    return None if str(path) in {"", "."} else path


def source_digest(spec: str) -> str:
    """``sha256:<hex>`` of what a source holds now; empty when there is nothing to see from here.

    A file is hashed; of a folder (or a large file) the names, sizes and times are, which takes a moment even
    for a hundred thousand images; linked folders are looked into. A change that keeps all three goes unseen.
    """
    path = source_path(spec)
    if path is None or not path.exists():
        return ""
    if path.is_file() and path.stat().st_size <= _HASHED_UP_TO:
        return "sha256:" + sha256_file(path)
    digest = hashlib.sha256()
    files, links = _below(path) if path.is_dir() else ([path], [])
    for item in sorted(files):
        if item.is_file():
            status = item.stat()
            name = item.relative_to(path).as_posix() if item != path else item.name
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    for link in links:
        digest.update(f"{link}\n".encode())
    return "sha256:" + digest.hexdigest()


def _below(folder: Path) -> tuple[list[Path], list[str]]:
    """Every file below a folder, linked folders included; and the ways to a folder that was seen already.

    A large image folder is often a link to another disk. A folder is entered once, so that a link to one
    above it ends.
    """
    files: list[Path] = []
    links: list[str] = []
    seen: dict[tuple[int, int], str] = {}
    for name, folders, names in os.walk(folder, followlinks=True):
        here = Path(name)
        status = here.stat()
        relative = here.relative_to(folder).as_posix()
        first = seen.setdefault((status.st_dev, status.st_ino), relative)
        if first != relative:
            links.append(f"{relative}\0is\0{first}")
            folders.clear()
            continue
        folders.sort()
        files += [here / item for item in names]
    return files, links


#: Parts of ``training`` that no model of a kind depends on; and what it depends on beside ``training``.
_NOT_THE_MODEL = {
    "classification": ("calibrate.py", "registry", "export", "evaluate", "patchcore", "loop", "drift"),
    "anomaly": ("registry", "export", "evaluate", "loop", "drift"),
}
_THE_MODEL_TOO = {"classification": (), "anomaly": ("serving/core",)}


def code_digests(kind: str = "classification") -> dict[str, str]:
    """A pipeline's three code inputs: what makes datasets, what makes models, what makes bundles of them.

    They are told apart so that a change in the registry or the export doesn't cost a training, nor a change
    for one kind of model the other's.
    """
    data = code_digest("data")
    fitting = _digest("training", leave_out=_NOT_THE_MODEL[kind])
    more = [_digest(package) for package in _THE_MODEL_TOO[kind]]
    return {
        "data_code": data,
        "model_code": digest_json([data, fitting, *more]),
        "bundle_code": digest_json(
            [data, code_digest("training"), code_digest("serving"), code_digest("components")]
        ),
    }


def whole_code_digest() -> str:
    """Over every source file of the project, as results name it."""
    return code_digest(*_PACKAGES)


def _digest(package: str, *, leave_out: tuple[str, ...] = ()) -> str:
    root = Path(__file__).resolve().parent.parent / package
    found = {
        path.relative_to(root).as_posix(): sha256_file(path)
        for path in sorted(root.rglob("*"))
        if path.suffix in {".py", ".yaml", ".json"}
        and "__pycache__" not in path.parts
        and path.relative_to(root).parts[0] not in leave_out
    }
    return digest_json(found)
