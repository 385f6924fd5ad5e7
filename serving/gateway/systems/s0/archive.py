"""The zip of an export: ``images/<sha256>.<ext>``, ``labels.csv``, ``cases.jsonl``.

Cases are read in pages, each in a transaction of its own; images are read outside of it, each content once.
Nothing but a page of rows and one image is in memory.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from data.errors import IntegrityError, NotFound
from serving.gateway.access.gate import Identity
from serving.gateway.blobs import BlobStore
from serving.gateway.store.engine import Store
from serving.gateway.store.repositories import case_files, cases
from serving.gateway.store.repositories.case_files import CaseFile
from serving.gateway.store.tables import Image, Label, Prediction

REJECTED = "rejected"
COLUMNS = (
    "image_name",
    "label",
    "task",
    "head",
    "reader",
    "cannot_grade",
    "labelled_at",
    "predicted",
    "confidence",
    "case_id",
    "image_id",
    "status",
    "rejected",
    "verdict",
)
_PAGE = 50
_PIECE = 2**20
# The same cases give the same bytes, whenever they are exported.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SUFFIX = {"image/jpeg": "jpg", "image/tiff": "tif"}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which cases: None takes all. ``since`` is about a case's last change."""

    status: str | None = None
    since: dt.datetime | None = None
    task: str | None = None

    def page(self, store: Store, who: Identity, after: int) -> list[CaseFile]:
        """The next cases after a number, with everything of them."""
        rejected = self.status == REJECTED
        with store.read(who.tenant, who.actor) as scope:
            rows = cases.listed(
                scope,
                status=None if rejected else self.status,
                rejected=True if rejected else None,
                task=self.task,
                since=self.since,
                after=after,
                limit=_PAGE,
            )
            return case_files.gather(scope, rows)


class Archive:
    """A zip that is being made in ``file``."""

    def __init__(self, blobs: BlobStore, file: IO[bytes]) -> None:
        self._blobs = blobs
        self._file = file
        self._names: dict[str, str | None] = {}
        self.cases = 0

    @property
    def images(self) -> int:
        """How many images it holds."""
        return sum(name is not None for name in self._names.values())

    def fill(self, store: Store, who: Identity, filters: Filters) -> None:
        """Write everything, and end the zip."""
        with (
            zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED) as archive,
            tempfile.TemporaryFile() as lines,
            tempfile.TemporaryFile() as table,
        ):
            text = io.TextIOWrapper(table, "utf-8", newline="", write_through=True)
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(COLUMNS)
            after = 0
            while page := filters.page(store, who, after):
                for told in page:
                    names = {image.id: self._put(archive, image) for image in told.images}
                    lines.write(json.dumps(document(told, names), ensure_ascii=False).encode() + b"\n")
                    rows.writerows(label_rows(told, names))
                self.cases += len(page)
                after = page[-1].case.number
            text.flush()
            _copy(archive, "labels.csv", table)
            _copy(archive, "cases.jsonl", lines)
            text.detach()

    def _put(self, archive: zipfile.ZipFile, image: Image) -> str | None:
        """An image's name in the archive; None where its bytes are gone since, or damaged."""
        if image.sha256 not in self._names:
            name = f"{image.sha256}.{_SUFFIX.get(image.media_type) or image.media_type.partition('/')[2]}"
            try:
                data = self._blobs.get(image.tenant_id, image.sha256)
            except (NotFound, IntegrityError):
                self._names[image.sha256] = None
            else:
                # Photographs are compressed already.
                archive.writestr(zipfile.ZipInfo(f"images/{name}", _EPOCH), data, zipfile.ZIP_STORED)
                self._names[image.sha256] = name
        return self._names[image.sha256]


def document(told: CaseFile, names: Mapping[str, str | None]) -> dict[str, Any]:
    """A case as a line of ``cases.jsonl``. ``names`` are its images' names in the archive, by their ids."""
    case = told.case
    return {
        "case_id": case.key,
        "status": case.status,
        "task": case.task,
        "rejected": case.rejected,
        "image_id": case.image_id,
        "patient_id": case.patient_id,
        "user_id": case.user_id,
        "user_role": case.user_role,
        "created_at": case.created_at.isoformat(),
        "updated_at": case.updated_at.isoformat(),
        "case": case.payload,
        "entries": [{"at": e.created_at.isoformat(), "by": e.by, "case": e.payload} for e in told.entries],
        "rejections": [
            {
                "at": r.created_at.isoformat(),
                "by": r.by,
                "reason": r.reason,
                "notes": r.notes,
                "predictions": r.predictions,
                "case": r.payload,
            }
            for r in told.rejections
        ],
        "images": [
            {
                "image_id": image.id,
                "file": f"images/{name}" if (name := names[image.id]) is not None else None,
                "sha256": image.sha256,
                "width": image.width,
                "height": image.height,
                "created_at": image.created_at.isoformat(),
            }
            for image in told.images
        ],
        "labels": [_label(label) for label in told.labels],
        "predictions": [_prediction(row) for row in told.predictions],
    }


def label_rows(told: CaseFile, names: Mapping[str, str | None]) -> Iterator[list[str]]:
    """Lines of ``labels.csv``: one for each label of each image; ``label`` is empty where there is none.

    ``predicted`` is what the newest model answer says for the label's head, or for the case's task;
    ``verdict`` the quality that it found. What isn't ``gradable`` needs no reader.
    """
    case = told.case
    for image in told.images:
        name = names[image.id]
        if name is None:
            continue
        # A challenger's in the shadow, which nobody was given, is only in cases.jsonl.
        answers = [row for row in told.predictions if row.image_id == image.id and row.returned]
        found: Sequence[Label | None] = [row for row in told.labels if row.image_id == image.id] or [None]
        for label in found:
            task = label.task if label is not None else case.task
            head, predicted, confidence = _predicted(answers, task, label.head if label is not None else None)
            yield [
                name,
                cell(label.value if label is not None else None),
                cell(task),
                cell(label.head if label is not None else head),
                cell(label.reader if label is not None else None),
                cell(label.cannot_grade if label is not None else None),
                label.created_at.isoformat() if label is not None else "",
                cell(predicted),
                "" if confidence is None else f"{confidence:.6f}",
                cell(case.key),
                image.id,
                cell(case.status),
                "yes" if case.rejected else "no",
                answers[-1].verdict if answers else "",
            ]


def cell(text: str | None) -> str:
    """A text that comes from outside, as a spreadsheet may see it: never a formula.

    A leading ``= + - @`` gets an apostrophe before it; ``cases.jsonl`` has the text as it was.
    """
    text = text or ""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def _predicted(
    answers: Sequence[Prediction], task: str | None, head: str | None
) -> tuple[str | None, str | None, float | None]:
    """Head, class and confidence of the newest answer; of a task with several heads, of the first."""
    for row in reversed(answers):
        heads = row.answer.get("heads") or {}
        name = head or next(iter(heads), None)
        if row.task == task and name in heads:
            return name, str(heads[name]["label"]), float(heads[name]["confidence"])
    return head, None, None


def _label(row: Label) -> dict[str, Any]:
    return {
        "label_id": row.id,
        "image_id": row.image_id,
        "task": row.task,
        "head": row.head,
        "value": row.value,
        "cannot_grade": row.cannot_grade,
        "comment": row.comment,
        "reader": row.reader,
        "source": row.source,
        "at": row.created_at.isoformat(),
    }


def _prediction(row: Prediction) -> dict[str, Any]:
    return {
        "prediction_id": row.id,
        "image_id": row.image_id,
        "task": row.task,
        "verdict": row.verdict,
        "reasons": row.reasons,
        "uncertain": row.uncertain,
        "role": row.role,
        "returned": row.returned,
        "heads": row.answer.get("heads", {}),
        "model": {
            "name": row.model_name,
            "version": row.model_version,
            "bundle_digest": row.bundle_digest,
            "precision": row.precision,
            "dataset_digest": row.dataset_digest,
            "code_digest": row.code_digest,
        },
        "at": row.created_at.isoformat(),
    }


def _copy(archive: zipfile.ZipFile, name: str, source: IO[bytes]) -> None:
    source.seek(0)
    about = zipfile.ZipInfo(name, _EPOCH)
    about.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(about, "w", force_zip64=True) as target:
        while piece := source.read(_PIECE):
            target.write(piece)
