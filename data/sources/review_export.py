"""The folder of labels that the gateway exports, read strictly: every fault is told, by its line.

::

    export.json     {"format": 1, "task": …, "made_at": …, "tenant": …, "withdrawn": […]}
    labels.jsonl    one label a line
    excluded.txt    SHA-256 of erased images, one a line: no dataset to come may hold them
    images/<sha256>.<ext>

``docs/loop.md`` states the format with an example; ``sha256`` is always that of the bytes as the gateway
keeps them.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset import Head
from data.errors import SourceError
from data.files import digest_json, sha256_file
from data.sources.base import fail, near

FORMAT = 1
INFO, LABELS, EXCLUDED, IMAGES = "export.json", "labels.jsonl", "excluded.txt", "images"

#: What a name inside an export may be: nothing that leads elsewhere.
IMAGE_NAME = re.compile(r"images/([0-9a-f]{64})\.(jpg|jpeg|png|bmp|webp|tif|tiff|gif)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("sha256", "file", "task", "head", "reader", "at")
_OPTIONAL = ("case_id", "image_id", "value", "cannot_grade", "group", "source")


@dataclass(frozen=True, slots=True)
class ReviewLabel:
    """What one reader says of one image for one head: a class (``value``), or why it can't be graded.

    ``sha256`` is of the file as it was sent. ``adjudicated``: this label decides where readers disagree.
    ``group`` is the patient, as the gateway names it; ``line`` the place in ``labels.jsonl``, from 1.
    """

    line: int
    sha256: str
    file: str
    task: str
    head: str
    value: str | None
    cannot_grade: str | None
    reader: str
    at: str
    adjudicated: bool
    case_id: str | None = None
    image_id: str | None = None
    group: str | None = None
    source: str | None = None
    prediction: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A label of an image (``sha256`` of the file sent) that was taken back at ``at``; no other stands."""

    sha256: str
    head: str
    at: str


@dataclass(frozen=True, slots=True)
class Settled:
    """What all readers of an image come to for one head.

    ``readers`` says who said what (None: can't be graded), without the adjudicator, who is ``decided_by``.
    ``at`` is the time of the newest label that counted. ``torn``: they disagree, and nobody decided.
    """

    value: str | None
    cannot_grade: str | None
    readers: Mapping[str, str | None]
    decided_by: str | None
    at: str
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """A checked export. ``digest`` is over labels, exclusions and what was taken back, so that the same again
    is the same."""

    root: Path
    task: str
    made_at: str
    tenant: str
    labels: tuple[ReviewLabel, ...]
    excluded: frozenset[str]
    digest: str
    withdrawn: tuple[Withdrawn, ...] = ()

    @property
    def readers(self) -> tuple[str, ...]:
        """Everyone who labelled, sorted."""
        return tuple(sorted({label.reader for label in self.labels}))

    def settled(self, contents: Mapping[str, str] | None = None) -> dict[str, dict[str, Settled]]:
        """``{image: {head: what its readers come to}}``, images in order.

        ``contents`` names what a file's SHA-256 is to be known by, where several files are one image.
        """
        given: dict[str, dict[str, list[ReviewLabel]]] = defaultdict(lambda: defaultdict(list))
        for label in self.labels:
            given[(contents or {}).get(label.sha256, label.sha256)][label.head].append(label)
        return {
            image: {head: settle(labels) for head, labels in sorted(heads.items())}
            for image, heads in sorted(given.items())
        }


def read_export(
    root: Path, *, task: str | None = None, heads: Sequence[Head] = (), images: bool = True
) -> Export:
    """Read and check an export.

    ``task`` and ``heads`` are what it must be for, where given. Without ``images`` the pictures aren't asked
    for (an export that only counts labels has none).

    Raises:
        SourceError: it is of another format or task; a line is malformed or names an unknown head or class; a
            file is missing, altered or lies outside; content that was erased is labelled.
    """
    info = _read_info(root)
    if task is not None and info["task"] != task:
        raise SourceError(
            f"The labels in {root} are for the task {info['task']!r}, not {task!r}.",
            hint=f"Export the labels of {task}: GET /v1/review/labels/export?task={task}.",
        )
    labels = _read_labels(root / LABELS)
    excluded = _read_excluded(root / EXCLUDED)
    withdrawn = _read_withdrawn(root / INFO, info.get("withdrawn", []))
    _check_words(labels, str(info["task"]), heads)
    erased = [f"line {label.line}: {label.sha256}" for label in labels if label.sha256 in excluded]
    if erased:
        raise fail(
            f"{len(erased)} label(s) are of images that were erased",
            erased,
            hint="Export the labels anew: the gateway leaves out what was erased since.",
        )
    if images:
        _check_images(root, labels)
    return Export(
        root=root,
        task=str(info["task"]),
        made_at=str(info["made_at"]),
        tenant=str(info["tenant"]),
        labels=tuple(labels),
        excluded=excluded,
        digest=_digest(str(info["task"]), labels, excluded, withdrawn),
        withdrawn=withdrawn,
    )


def settle(labels: Sequence[ReviewLabel]) -> Settled:
    """What the readers of one image come to for one head: what was adjudicated, else what all of them say."""
    readers: dict[str, str | None] = {}
    for label in sorted((each for each in labels if not each.adjudicated), key=_when):
        readers[label.reader] = label.value
    counted = [label for label in labels if label.adjudicated] or list(labels)
    last = max(counted, key=_when)
    torn = len({label.value for label in counted}) != 1
    return Settled(
        value=None if torn else last.value,
        cannot_grade=None if torn else last.cannot_grade,
        readers=readers,
        decided_by=last.reader if last.adjudicated and not torn else None,
        at=last.at,
        torn=torn,
    )


def _when(label: ReviewLabel) -> tuple[dt.datetime, str]:
    return moment(label.at), label.reader


def moment(text: str) -> dt.datetime:
    """A time in ISO 8601 that names its zone. ``ValueError`` for any other text."""
    found = dt.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return found


def _read_info(root: Path) -> Mapping[str, Any]:
    path = root / INFO
    if not path.is_file():
        raise SourceError(
            f"{root} holds no {INFO}, so it is no export of labels.",
            hint="Give the unpacked folder of GET /v1/review/labels/export?task=….",
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}.", hint="Export the labels anew.") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else None
        raise SourceError(
            f"{path} is of format {found!r}; this version reads format {FORMAT}.",
            hint="Export with a gateway of this version.",
        )
    for key in ("task", "made_at", "tenant"):
        if not isinstance(info.get(key), str) or not info[key]:
            raise SourceError(f"{path} lacks a text {key!r}.", hint="Export the labels anew.")
    _time_or_fail(str(path), info["made_at"])
    return info


def _time_or_fail(where: str, text: str) -> None:
    try:
        moment(text)
    except ValueError:
        raise SourceError(
            f"{where}: {text!r} is no time with a zone.", hint="Write it as 2026-11-20T10:36:00+00:00."
        ) from None


def _read_withdrawn(path: Path, given: Any) -> tuple[Withdrawn, ...]:
    """In order. Exports of before have none."""
    found = []
    for item in given if isinstance(given, list) else [given]:
        told = item if isinstance(item, dict) else {}
        texts = [told.get(key) for key in ("sha256", "head", "at")]
        if not all(isinstance(text, str) for text in texts) or not _SHA256.fullmatch(str(texts[0])):
            raise SourceError(f"{path}: {item!r} is no label taken back.", hint="Export the labels anew.")
        _time_or_fail(str(path), str(texts[2]))
        found.append(Withdrawn(*map(str, texts)))
    return tuple(sorted(found, key=lambda each: (each.sha256, each.head, each.at)))


def _read_labels(path: Path) -> list[ReviewLabel]:
    if not path.is_file():
        raise SourceError(f"{path.parent} holds no {LABELS}.", hint="Export the labels anew.")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 ({error.reason}).", hint="Export the labels anew.") from error
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_label(number, json.loads(line)))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise fail(f"{len(wrong)} line(s) of {LABELS} are malformed", wrong, hint="Export the labels anew.")
    return found


def _label(number: int, value: Any) -> ReviewLabel:
    """A line as a label; ``ValueError`` says what is wrong with it. Further keys are left aside."""
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    for key in _TEXTS:
        if not isinstance(value.get(key), str) or not value[key].strip():
            raise ValueError(f"{key} must be a text, not {value.get(key)!r}")
    for key in _OPTIONAL:
        if value.get(key) is not None and not (isinstance(value[key], str) and value[key].strip()):
            raise ValueError(f"{key} must be a text or null, not {value[key]!r}")
    if not isinstance(value.get("adjudicated"), bool):
        raise ValueError(f"adjudicated must be true or false, not {value.get('adjudicated')!r}")
    if (value.get("value") is None) == (value.get("cannot_grade") is None):
        raise ValueError("it needs either a class as value, or a reason as cannot_grade")
    if not _SHA256.fullmatch(value["sha256"]):
        raise ValueError(f"sha256 is {value['sha256']!r}")
    name = IMAGE_NAME.fullmatch(value["file"])
    if name is None or name[1] != value["sha256"]:
        raise ValueError(f"file must be images/<sha256>.<ext>, not {value['file']!r}")
    if value.get("prediction") is not None and not isinstance(value["prediction"], dict):
        raise ValueError("prediction must be an object or null")
    try:
        moment(value["at"])
    except ValueError:
        raise ValueError(f"at is {value['at']!r}, no time with a zone") from None
    texts: dict[str, Any] = {key: value.get(key) for key in (*_TEXTS, *_OPTIONAL)}
    return ReviewLabel(
        line=number, adjudicated=value["adjudicated"], prediction=value.get("prediction"), **texts
    )


def _read_excluded(path: Path) -> frozenset[str]:
    if not path.is_file():
        raise SourceError(
            f"{path.parent} holds no {EXCLUDED}, so nobody can say what was erased.",
            hint="Export the labels anew; where nothing was erased the file is empty.",
        )
    found, wrong = set(), []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if _SHA256.fullmatch(line.strip()):
            found.add(line.strip())
        else:
            wrong.append(f"line {number}: {line.strip()[:80]!r}")
    if wrong:
        raise fail(f"{len(wrong)} line(s) of {EXCLUDED} are no SHA-256", wrong)
    return frozenset(found)


def _check_words(labels: Sequence[ReviewLabel], task: str, heads: Sequence[Head]) -> None:
    """Every label is of the export's task, of a head that there is, and of one of its classes."""
    other = [f"line {label.line}: {label.task}" for label in labels if label.task != task]
    if other:
        raise fail(f"{len(other)} label(s) are of another task than {task}", other)
    if not heads:
        return
    classes = {head.name: head.classes for head in heads}
    unknown = [
        f"line {label.line}: {label.head}{near(label.head, list(classes))}"
        for label in labels
        if label.head not in classes
    ]
    if unknown:
        raise fail(
            f"{len(unknown)} label(s) name a head that the task {task} doesn't have",
            unknown,
            hint=f"It has: {', '.join(classes)}.",
        )
    strange = [
        f"line {label.line}: {label.head}={label.value}"
        for label in labels
        if label.value is not None and label.value not in classes[label.head]
    ]
    if strange:
        named = "; ".join(f"{head.name}: {', '.join(head.classes)}" for head in heads)
        raise fail(f"{len(strange)} label(s) name an unknown class", strange, hint=f"Classes: {named}.")


def _check_images(root: Path, labels: Sequence[ReviewLabel]) -> None:
    """Each file is there, is a plain file inside the export, and has the content that its name says."""
    files: dict[str, str] = {}
    for label in labels:
        if files.setdefault(label.sha256, label.file) != label.file:
            raise SourceError(f"Line {label.line} names another file of {label.sha256} than an earlier line.")
    if (root / IMAGES).is_symlink():
        raise SourceError(f"{root / IMAGES} is a link.", hint="Give the folder as it was unpacked.")
    missing, outside, altered = [], [], []
    for sha256, name in files.items():
        path = root / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            outside.append(name)
        elif not path.is_file():
            missing.append(name)
        elif sha256_file(path) != sha256:
            altered.append(name)
    for what, names in (
        ("image(s) are missing", missing),
        ("image(s) are links or no files", outside),
        ("image(s) are not what their names say (SHA-256)", altered),
    ):
        if names:
            raise fail(f"{len(names)} {what}", sorted(names), hint="Export the labels anew.")


def _digest(
    task: str, labels: Sequence[ReviewLabel], excluded: frozenset[str], withdrawn: Sequence[Withdrawn]
) -> str:
    """Over what a dataset depends on; not when it was exported, nor the order of lines."""
    rows = sorted(
        [
            each.sha256,
            each.head,
            each.reader,
            each.value or "",
            each.cannot_grade or "",
            each.at,
            "adjudicated" if each.adjudicated else "",
            each.group or "",
            each.case_id or "",
            each.image_id or "",
        ]
        for each in labels
    )
    gone = [[each.sha256, each.head, each.at] for each in withdrawn]
    return digest_json(
        {
            "format": FORMAT,
            "task": task,
            "labels": rows,
            "excluded": sorted(excluded),
            **({"withdrawn": gone} if gone else {}),
        }
    )
